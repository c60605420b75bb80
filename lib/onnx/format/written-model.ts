/** A model in a file of ours, its external data where it was. */
export class WrittenModel {
  constructor(
    /** The ONNX file. TensorRT, and what here reads models, find its external data beside it, by symbolic links. */
    readonly file: string,
    /**
     * The folder relative to which it names its external data; undefined: its own. ONNX Runtime, which follows no symbolic
     * link out of a model's folder, looks there.
     */
    readonly weights: string | undefined,
  ) {}
}
