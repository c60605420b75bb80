import { TensorRTError } from '../base/errors.js';
import type { Json } from '../base/json.js';

/** How a decoder of tokenizer.json turns a token into text, independently of its neighbours. */
export interface Decoding {
  readonly steps: ((token: string) => string)[];
  /**
   * How the resulting text encodes bytes. 'byte-level': each character is a byte (GPT-2). 'byte-fallback': `<0x0A>` is
   * a byte.
   */
  bytes: 'utf-8' | 'byte-level' | 'byte-fallback';
  /** Decoders from here on would see the whole text. */
  isFused: boolean;
  stripLeadingSpace: boolean;
}

/** Adds a decoder to `decoding`. Follows tokenizers/src/decoders of Hugging Face's Rust library. */
export function readDecoder(decoder: Json | null, decoding: Decoding, file: string): void {
  const unsupported = (problem: string) =>
    new TensorRTError('ERR_MODEL_UNSUPPORTED', `${file}: ${problem}. Give a tokenizer as options.tokenizer.`);
  const type = decoder?.type;
  if (decoding.isFused && type !== 'Strip')
    throw unsupported(`the decoder ${type} after Fuse is not supported`);
  const space = ' ';
  switch (type) {
    case undefined: // words, joined by spaces
      decoding.steps.push((token) => space + token);
      decoding.stripLeadingSpace = true;
      return;
    case 'Sequence':
      for (const each of decoder!.decoders as Json[]) readDecoder(each, decoding, file);
      return;
    case 'ByteLevel':
      decoding.bytes = 'byte-level';
      return;
    case 'ByteFallback':
      decoding.bytes = 'byte-fallback';
      return;
    case 'Fuse':
      decoding.isFused = true;
      return;
    case 'Replace': {
      const pattern = (decoder!.pattern as Json | undefined)?.String;
      if (typeof pattern !== 'string')
        throw unsupported('its decoder Replace has a pattern that is not a string');
      const content = String(decoder!.content ?? '');
      decoding.steps.push((token) => token.replaceAll(pattern, content));
      return;
    }
    case 'Metaspace': {
      const replacement = String(decoder!.replacement ?? '▁');
      decoding.steps.push((token) => token.replaceAll(replacement, space));
      // Older files use add_prefix_space.
      decoding.stripLeadingSpace = decoder!.prepend_scheme
        ? decoder!.prepend_scheme !== 'never'
        : decoder!.add_prefix_space !== false;
      return;
    }
    case 'WordPiece': {
      const prefix = String(decoder!.prefix ?? '##');
      decoding.steps.push((token) => (token.startsWith(prefix) ? token.slice(prefix.length) : space + token));
      if (decoder!.cleanup !== false) decoding.steps.push(withoutSpaceBeforePunctuation);
      decoding.stripLeadingSpace = true;
      return;
    }
    case 'Strip': {
      const [content, start, stop] = [
        String(decoder!.content),
        Number(decoder!.start),
        Number(decoder!.stop),
      ];
      if (decoding.isFused) {
        if (content !== space || start > 1 || stop > 0)
          throw unsupported('its decoder strips more than one space');
        decoding.stripLeadingSpace = start === 1;
        return;
      }
      decoding.steps.push((token) => {
        let [begin, end] = [0, token.length];
        while (begin < Math.min(start, end) && token[begin] === content) begin++;
        while (end > begin && token.length - end < stop && token[end - 1] === content) end--;
        return token.slice(begin, end);
      });
      return;
    }
    default:
      throw unsupported(`the decoder ${type} is not supported`);
  }
}

/** WordPiece's `cleanup`, for one token. */
function withoutSpaceBeforePunctuation(token: string): string {
  return token
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
