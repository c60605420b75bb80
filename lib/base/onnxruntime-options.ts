/** The beginning of every reason why an option of onnxruntime-node is refused here. */
export const theirs = "is onnxruntime-node's";
const notLogged = `${theirs}, and has no counterpart: nothing is logged; what matters is an error, or in a manifest's warnings.`;

/** Options of onnxruntime-node's sessions and runs that say what is logged, and why there are none here. */
export const refusedLoggingOptions = {
  logId: notLogged,
  logSeverityLevel: notLogged,
  logVerbosityLevel: notLogged,
  extra: `${theirs}, and has no counterpart: ONNX Runtime's own settings can't be given.`,
} as const;
