import { checkPath, readOptions } from '../base/options.js';
import type { EngineManifest } from '../engine/manifest.js';
import { loadNative } from '../execution/load-native.js';
import { scratchDirectory } from '../system/files/temporary-directory.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import { ChatTemplate } from '../text/chat-template.js';
import type { TokenPieces } from '../text/piece-writer.js';
import { readTokenizer } from '../text/read-tokenizer.js';
import { tokenPieces } from '../text/token-pieces.js';
import { readEosToken } from '../text/tokenizer-config.js';
import { DecodeLoop } from './decode-loop.js';
import { readDecoderConfig } from './decoder-config.js';
import { KvCache } from './kv-cache.js';
import {
  type LanguageModelOptions,
  languageModelOptions,
  refusedLanguageModelOptions,
} from './language-model-options.js';
import { type PlacedDecoder, placeDecoder } from './place-decoder.js';
import type { SequenceContext } from './sequence.js';
import { UnusableValue } from './unusable-value.js';

/** The parts of a LanguageModel. */
export interface OpenedLanguageModel {
  /** The loaded model, on its thread. */
  readonly loop: DecodeLoop;
  /** The context in which requests are read. */
  readonly context: SequenceContext;
  readonly kvCache: KvCache;
  readonly device: string;
  readonly why: string;
  readonly runtime: NativeLoadedModel['runtime'];
  readonly precision: EngineManifest['precision'];
}

/** Without a tokenizer, tokens have no text. */
const noPieces: TokenPieces = {
  bytes: new Uint8Array(),
  offsets: Uint32Array.of(0),
  stripLeadingSpace: false,
};

/**
 * Implements `LanguageModel.load`.
 * @throws (rejects) the errors of that function
 */
export async function openLanguageModel(
  source: string,
  options: LanguageModelOptions,
): Promise<OpenedLanguageModel> {
  checkPath(source, 'pathToDirOrOnnx');
  const settings = readOptions(options, 'options', languageModelOptions, refusedLanguageModelOptions);
  const { signal, kvCache, chunkSize, maxQueue } = settings;
  signal?.throwIfAborted();

  const config = await readDecoderConfig(source);
  const tokenizer = settings.tokenizer ?? (await readTokenizer(config.directory));
  const named = config.eosTokens instanceof UnusableValue || config.eosTokens.length > 0;
  const eosTokens = named ? config.eosTokens : await readEosToken(config.directory, tokenizer);
  const chatTemplate = await ChatTemplate.load(config.directory, settings.chatTemplate);
  const directory = await scratchDirectory();
  let decoder: PlacedDecoder | undefined;
  try {
    decoder = await placeDecoder(config, settings, directory.path);
    const { graph, capacity: maxLength, vocabulary, fingerprint, load } = decoder;
    const { maxBatchSize: rows, prefixReuse } = kvCache;
    const { stripLeadingSpace, ...pieces } = tokenizer ? tokenPieces(tokenizer, vocabulary) : noPieces;
    const ofRows = { graph, rows, maxLength, chunkSize, maxQueue, prefixReuse, fingerprint };
    const loop = new DecodeLoop({ ...ofRows, pieces, stripLeadingSpace });
    const { runtime } = await loadNative(loop.native, signal, load, (loaded) => loaded);
    const { sampling } = config;
    const context = { tokenizer, chatTemplate, vocabulary, maxLength, eosTokens, sampling };
    const cache = new KvCache(loop.native, graph.mode, decoder.whyMode, maxLength);
    const { device, why, precision } = decoder;
    return { loop, context, kvCache: cache, device, why, runtime, precision };
  } finally {
    decoder?.release();
    await directory.remove();
  }
}
