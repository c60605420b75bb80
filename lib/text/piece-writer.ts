/** The UTF-8 of every token, from which native makes text. */
export interface TokenPieces {
  /** Token i is `bytes.subarray(offsets[i], offsets[i + 1])`. */
  readonly bytes: Uint8Array;
  readonly offsets: Uint32Array;
  /** True if a text loses its first space. */
  readonly stripLeadingSpace: boolean;
}

/**
 * The byte that each UTF-16 unit stands for in GPT-2's byte-level tokens, or -1. Printable Latin-1 characters stand for
 * themselves; the other bytes follow from U+0100 (`bytes_to_unicode` in GPT-2's encoder.py).
 */
const byteOfUnit = (() => {
  const table = new Int16Array(0x144).fill(-1);
  let next = 0x100;
  for (let byte = 0; byte < 0x100; byte++) {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    table[isPrintable ? byte : next++] = byte;
  }
  return table;
})();

/** Writes one piece after the other. */
export class PieceWriter {
  readonly #offsets: Uint32Array;
  readonly #utf8 = new TextEncoder();
  #bytes: Uint8Array;
  #length = 0;
  #token = 0;

  constructor(tokens: number, bytes: number) {
    this.#offsets = new Uint32Array(tokens + 1);
    this.#bytes = new Uint8Array(Math.max(bytes, 64));
  }

  text(text: string): void {
    this.#reserve(3 * text.length);
    this.#length += this.#utf8.encodeInto(text, this.#bytes.subarray(this.#length)).written;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /**
   * Writes a byte-level token. If a character doesn't stand for a byte, returns false and writes nothing: the token is
   * plain text.
   */
  byteLevel(text: string): boolean {
    this.#reserve(text.length);
    for (let i = 0; i < text.length; i++) {
      const byte = byteOfUnit[text.charCodeAt(i)] ?? -1;
      if (byte < 0) return false;
      this.#bytes[this.#length + i] = byte;
    }
    this.#length += text.length;
    return true;
  }

  /** Ends the current token. */
  next(): void {
    this.#offsets[++this.#token] = this.#length;
  }

  pieces(stripLeadingSpace: boolean): TokenPieces {
    return { bytes: this.#bytes.slice(0, this.#length), offsets: this.#offsets, stripLeadingSpace };
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const larger = new Uint8Array(2 * (this.#length + bytes));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}
