import type { DecoderGraph } from '../../base/decoder-graph.js';
import type { ModelProto } from '../format/model.js';

/**
 * A decoder whose attention is GroupQueryAttention over caches in place, and the way to drive it; or the reason why it
 * can't be lifted.
 */
export type Lift =
  | { readonly model: ModelProto; readonly graph: DecoderGraph; readonly reason?: undefined }
  | { /** The node and its problem, as the end of a sentence. */ readonly reason: string };

/** Thrown with the reason why a graph stays as it is. */
export class Unrecognised extends Error {
  override readonly name = 'Unrecognised';
}
