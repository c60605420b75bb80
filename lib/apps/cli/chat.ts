import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { type ChatMessage, type GenerateOptions, type Generation, LanguageModel } from '../../index.js';
import {
  addGenerationFlags,
  follow,
  type GenerationFlags,
  generationSummary,
  readGenerationFlags,
} from './generate.js';
import { errorLine, print, progressLine, withFlags } from './output.js';

/**
 * A question and its answer. If it was cancelled, `text` is the part that had arrived; if it didn't fit, `error` is the
 * reason.
 */
type Turn = { question: string; text: string; error?: string } & Partial<
  Pick<Generation, 'finishReason' | 'usage' | 'timing'>
>;

const clear = '/clear';

/** `chat DIR`: a conversation with one question per line, from a terminal or a pipe. */
export function addChatCommand(program: Command): void {
  addGenerationFlags(
    program
      .command('chat')
      .description(
        `talk with a language model; ${clear} starts over, Ctrl-C cancels an answer, and Ctrl-D or Ctrl-C twice at the prompt quits`,
      )
      .argument('<model>', 'folder that optimum or onnxruntime-genai exported')
      .option('--system <text>', 'system message, the instructions for the conversation'),
  ).action(chat);
}

async function chat(
  source: string,
  flags: GenerationFlags & { system?: string },
  command: Command,
): Promise<void> {
  const options = readGenerationFlags(flags);
  const progress = progressLine();
  progress.show('loading …');
  const model = await LanguageModel.load(source, options.load).finally(() => progress.clear());
  try {
    const turns = await converse(model, options.generate, flags, command);
    // At a terminal, the user has seen the errors.
    if (!process.stdin.isTTY && turns.some(({ error }) => error !== undefined)) process.exitCode = 1;
    if (!flags.json) return;
    const { device, why, runtime } = model;
    print(JSON.stringify({ model: source, device, why, runtime, turns }, null, 2));
  } finally {
    await model.dispose();
  }
}

async function converse(
  model: LanguageModel,
  options: GenerateOptions,
  { system, json }: { system?: string; json: boolean },
  command: Command,
): Promise<Turn[]> {
  const beginning: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }];
  let messages = [...beginning];
  const turns: Turn[] = [];
  const isTerminal = process.stdin.isTTY && process.stdout.isTTY;
  const lines = createInterface({
    input: process.stdin,
    ...(isTerminal && !json ? { output: process.stdout, terminal: true } : {}),
    prompt: '> ',
  });
  // Questions asked before the input ended are still answered. readline's own iterator and prompt don't work after the
  // end.
  const asked: string[] = [];
  let isClosed = false;
  let wake = () => {};
  lines.on('line', (line) => {
    asked.push(line);
    wake();
  });
  lines.on('close', () => {
    isClosed = true;
    wake();
  });
  const nextLine = async (): Promise<string | undefined> => {
    if (isTerminal && !json && !isClosed && asked.length === 0) lines.prompt();
    while (asked.length === 0 && !isClosed) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return asked.shift();
  };

  let answering: AbortController | undefined;
  let warned = false;
  const interrupt = () => {
    if (answering) return answering.abort();
    if (warned) return lines.close();
    warned = true;
    process.stderr.write('\n(press Ctrl-C again, or Ctrl-D, to quit)\n');
    if (isTerminal && !json) lines.prompt();
  };
  // Until now Ctrl-C ended the program. A terminal in raw mode sends no signal; readline reports the key instead.
  process.removeAllListeners('SIGINT');
  process.on('SIGINT', interrupt);
  lines.on('SIGINT', interrupt);
  try {
    for (let line = await nextLine(); line !== undefined; line = await nextLine()) {
      warned = false;
      if (line.trim() === clear) {
        messages = [...beginning];
      } else if (line.trim() !== '') {
        messages.push({ role: 'user', content: line });
        answering = new AbortController();
        const turn = await answer(model, messages, { ...options, signal: answering.signal }, json, command);
        answering = undefined;
        if (turn.error === undefined) messages.push({ role: 'assistant', content: turn.text });
        else messages.pop();
        turns.push({ question: line, ...turn });
      }
    }
    return turns;
  } finally {
    process.removeListener('SIGINT', interrupt);
    lines.close();
  }
}

/**
 * Shows an answer as it comes. Returns the part that had arrived if it is cancelled, and no answer if the conversation
 * is too long.
 */
async function answer(
  model: LanguageModel,
  messages: readonly ChatMessage[],
  options: GenerateOptions,
  json: boolean,
  command: Command,
): Promise<Omit<Turn, 'question'>> {
  let text = '';
  const chunks = model.stream(messages, options);
  try {
    const generation = await follow(chunks, (part) => {
      text += part;
      if (!json) process.stdout.write(part);
    });
    const { finishReason, usage, timing } = generation;
    if (!json && process.stderr.isTTY) process.stderr.write(`\n${generationSummary(generation)}`);
    return { text, finishReason, usage, timing };
  } catch (error) {
    if (options.signal?.aborted) return { text };
    const { code, message } = error as { code?: string; message: string };
    if (code !== 'ERR_SHAPE_MISMATCH') throw error;
    process.stderr.write(
      `${errorLine({ code, message }, command)}(That question is left out. ${clear} starts a new conversation; --max-length makes room for a longer one.)\n`,
    );
    return { text, error: withFlags(message, command) };
  } finally {
    if (!json) print('');
  }
}
