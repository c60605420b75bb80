/**
 * The first bytes of an engine file. Like PNG's signature, no text file begins with them, and a transfer in text mode
 * damages them.
 */
export const engineMagic = Buffer.from([0x89, 0x4e, 0x54, 0x52, 0x54, 0x0d, 0x0a, 0x1a]);

/** The first bytes of plans of TensorRT and of TensorRT-RTX. */
export const planMagics: readonly string[] = ['ptrt', 'vtrt'];

const archive = (kind: string) => `${kind} archive: unpack it, and give the file in it.`;

/** The number of bytes that are enough to recognise a format. */
export const seenBytes = 1024;

/** A format's first bytes, one character per byte. */
type Sign = RegExp | { readonly [offset: number]: string; readonly has?: string };

/** A format's signature, and the words that describe a file of that format. */
type Format = readonly [sign: Sign, what: string];

/** Files that a failed download leaves instead of the wanted one. */
const failedDownloads: readonly Format[] = [
  [/^version https:\/\/git-lfs/, "Git LFS's pointer to the file, not the file: `git lfs pull` fetches it."],
  [
    /^(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body)/i,
    'a web page, not the file: download the file itself (on a model hub from its /resolve/ address, not /blob/).',
  ],
  [
    /^(?:\xef\xbb\xbf)?\s*<(?:\?xml|Error)/,
    "XML: the message of a server that refused the download, or another framework's model.",
  ],
];

const formats: readonly Format[] = [
  ...failedDownloads,
  [/^(?:\xff\xfe|\xfe\xff|\{\0|\0\{)/, 'UTF-16 text: save it as UTF-8.'],
  [{ 8: '{"' }, 'a safetensors file: it has weights, but no graph to run. Export the model to ONNX.'],
  [{ 0: 'GGUF' }, 'a GGUF file for llama.cpp. Export the model to ONNX.'],
  [{ 4: 'TFL3' }, 'a TensorFlow Lite model. Convert it to ONNX (tf2onnx).'],
  [{ 4: 'ORTM' }, "a model in ONNX Runtime's own format (.ort): give the ONNX file that it was made of."],
  [{ 0: '\x89HDF\r\n' }, 'an HDF5 file, such as Keras writes. Convert the model to ONNX.'],
  [{ 0: 'PK\x03\x04', has: 'data.pkl' }, 'a PyTorch file. Export the model to ONNX.'],
  [{ 0: 'PK\x03\x04', has: 'constants.pkl' }, 'a TorchScript file. Export the model to ONNX.'],
  [{ 0: 'PK\x03\x04', has: '.npy' }, 'a NumPy archive (.npz), not a model.'],
  [{ 0: 'PK\x03\x04' }, `a ${archive('zip')}`],
  ...['\x02', '\x03', '\x04', '\x05'].map(
    (protocol) =>
      [
        { 0: `\x80${protocol}` },
        'a Python pickle, such as PyTorch writes. Export the model to ONNX.',
      ] as const,
  ),
  [{ 0: '\x93NUMPY' }, 'a NumPy array (.npy), not a model.'],
  [{ 0: '\x1f\x8b' }, `a ${archive('gzip')}`],
  [{ 0: 'BZh' }, `a ${archive('bzip2')}`],
  [{ 0: '\xfd7zXZ' }, `an ${archive('xz')}`],
  [{ 0: '\x28\xb5\x2f\xfd' }, `a ${archive('zstd')}`],
  [{ 0: '7z\xbc\xaf\x27\x1c' }, `a ${archive('7z')}`],
  [{ 257: 'ustar' }, `a ${archive('tar')}`],
  ...planMagics.map(
    (magic) => [{ 0: magic }, 'a TensorRT plan: Engine.load reads it, with { trusted: true }.'] as const,
  ),
  [
    { 0: engineMagic.toString('latin1') },
    'an engine, not an ONNX model: Engine.load(path) reads it, and InferenceSession.create runs what that returns.',
  ],
  [
    { 0: '\0'.repeat(16) },
    'a file of zero bytes, at least at its beginning: its download did not finish, or the disk was full.',
  ],
];

function shows(start: string, sign: Sign): boolean {
  if (sign instanceof RegExp) return sign.test(start);
  const { has = '', ...magics } = sign;
  return (
    start.includes(has) && Object.entries(magics).every(([at, magic]) => start.startsWith(magic, Number(at)))
  );
}

function named(bytes: Uint8Array, among: readonly Format[]): string | undefined {
  const start = characters(bytes);
  return among.find(([sign]) => shows(start, sign))?.[1];
}

/**
 * Describes bytes that aren't in the expected format, as a phrase for an error ("a gzip archive: …"). Undefined if the
 * format isn't recognised.
 */
export function otherFormat(bytes: Uint8Array): string | undefined {
  return named(bytes, formats);
}

/**
 * Like {@link otherFormat}, for bytes that may be anything, as weights may: recognises only what a failed download
 * leaves.
 */
export function failedDownload(bytes: Uint8Array): string | undefined {
  return named(bytes, failedDownloads);
}

/** Like {@link otherFormat}, for bytes that should be binary: also recognises text. */
export function otherThanBinary(bytes: Uint8Array): string | undefined {
  const known = otherFormat(bytes);
  const start = characters(bytes);
  if (known || start.length < 8 || !/^[\t\n\r\x20-\x7e\x80-\xff]*$/.test(start)) return known;
  return `text that begins with ${JSON.stringify(
    start
      .trim()
      .split(/[\r\n]/)[0]!
      .slice(0, 40),
  )}.`;
}

function characters(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, seenBytes)).toString('latin1');
}
