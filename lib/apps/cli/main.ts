#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { addBenchCommand } from './bench.js';
import { addBuildCommand } from './build.js';
import { addChatCommand } from './chat.js';
import { addCompareCommand } from './compare.js';
import { addDoctorCommand } from './doctor.js';
import { addGenerateCommand } from './generate.js';
import { addInspectCommand } from './inspect.js';
import { addLibsCommand } from './libs.js';
import { errorLine, UsageError } from './output.js';
import { addPruneCommand } from './prune.js';
import { addRunCommand } from './run.js';

const { version } = require('../../../package.json') as { version: string };

// Exit codes: 0 for success, 1 for failure (one line on stderr, with the error's code), 2 for wrong usage.

async function main(): Promise<void> {
  const program = new Command('node-tensorrt')
    .description(
      'TensorRT for Node.js: compile ONNX models into engines, look into them, run models, generate text',
    )
    .version(version)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true });
  addDoctorCommand(program);
  addLibsCommand(program);
  addBuildCommand(program);
  addInspectCommand(program);
  addRunCommand(program);
  addBenchCommand(program);
  addPruneCommand(program);
  addCompareCommand(program);
  addGenerateCommand(program);
  addChatCommand(program);
  for (const command of program.commands) {
    for (const each of [command, ...command.commands]) each.exitOverride();
  }
  let command = program;
  program.hook('preAction', (_, action) => {
    command = action;
  });
  // Calling exit() removes temporary files and stops running work; being killed by the signal would not.
  process.once('SIGINT', () => process.exit(130));
  process.once('SIGTERM', () => process.exit(143));
  // If the reader closes the pipe (`… | head`), that isn't a failure; a full disk is.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : report(Object.assign(error, { code: 'ERR_IO' }), command));
  });
  try {
    await program.parseAsync();
  } catch (error) {
    process.exitCode = report(error, command);
  }
}

/** Reports a command's error on stderr; returns the exit code. */
function report(error: unknown, command: Command): number {
  // Commander has already printed its own message. Help and version also end here, with 0.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof UsageError) {
    process.stderr.write(`error: ${error.message}\n`);
    return 2;
  }
  process.stderr.write(errorLine(error as Error, command));
  return 1;
}

void main();
