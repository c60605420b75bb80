/** The beginning of every message that refuses an option of onnxruntime-node's. */
export const theirs = "is onnxruntime-node's";
const notLogged = `${theirs}, and has no counterpart: nothing is logged. Problems are errors, or warnings in a manifest.`;

/** Logging options of onnxruntime-node's sessions and runs, each with the reason why it is refused here. */
export const refusedLoggingOptions = {
  logId: notLogged,
  logSeverityLevel: notLogged,
  logVerbosityLevel: notLogged,
  extra: `${theirs}, and has no counterpart: ONNX Runtime's own settings can't be given.`,
} as const;
