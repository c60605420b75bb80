/** A model that was written to a file. Its external data stayed where it was. */
export class WrittenModel {
  constructor(
    /** The ONNX file. TensorRT and this package's readers find its external data beside it, through symbolic links. */
    readonly file: string,
    /**
     * The folder that the locations of its external data are relative to; undefined for the file's own folder. ONNX
     * Runtime looks there, because it follows no symbolic link out of a model's folder.
     */
    readonly weights: string | undefined,
  ) {}
}
