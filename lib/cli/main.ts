#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { UsageError } from './output.js';
import { addRunCommand } from './run.js';

// Exit codes: 0 done, 1 failed (one line on stderr, with the error's code), 2 wrong usage.

async function main(): Promise<void> {
  const { version } = require('../../package.json') as { version: string };
  const program = new Command('node-tensorrt')
    .description('TensorRT for Node.js: compile ONNX models into engines, look into them, run models')
    .version(version)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true });
  addRunCommand(program);
  for (const command of program.commands) command.exitOverride();
  try {
    await program.parseAsync();
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** Says on stderr what went wrong; returns the exit code. */
function report(error: unknown): number {
  // Commander has printed its own message; help and version end here with 0.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const { code, message } = error as { code?: string; message: string };
  if (error instanceof UsageError) {
    process.stderr.write(`error: ${message}\n`);
    return 2;
  }
  process.stderr.write(`error: ${code ? `${code}: ` : ''}${message.replaceAll('\n', ' ')}\n`);
  return 1;
}

void main();
