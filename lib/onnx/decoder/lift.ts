import type { DecoderGraph } from '../../base/decoder-graph.js';
import type { ModelProto } from '../format/model.js';

/** A decoder whose attention is GroupQueryAttention over caches in place, and how it is driven; or why it can't be. */
export type Lift =
  | { readonly model: ModelProto; readonly graph: DecoderGraph; readonly reason?: undefined }
  | { /** The node and what is wrong with it: the end of a sentence. */ readonly reason: string };

/** The reason why a graph stays as it is. */
export class Unrecognised extends Error {
  override readonly name = 'Unrecognised';
}
