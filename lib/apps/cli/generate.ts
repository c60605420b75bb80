import { readFileSync } from 'node:fs';
import { text as readText } from 'node:stream/consumers';
import type { Command } from 'commander';
import {
  type GenerateOptions,
  type Generation,
  type GenerationChunk,
  LanguageModel,
  type LanguageModelOptions,
} from '../../index.js';
import { parseDevice } from './input-flags.js';
import { print, progressLine, UsageError } from './output.js';

/** The flags that `generate` and `chat` share. */
export interface GenerationFlags {
  maxTokens: string;
  temperature?: string;
  topK?: string;
  topP?: string;
  minP?: string;
  seed?: string;
  logprobs?: string;
  stop: string[];
  chatTemplate?: string;
  maxLength?: string;
  threads?: string;
  device: string;
  json: boolean;
}

export function addGenerationFlags(command: Command): Command {
  return command
    .option('--max-tokens <count>', 'most tokens in an answer', '256')
    .option('--temperature <number>', "0 is greedy; default: the model's")
    .option('--top-k <count>', 'choose among this many of the likeliest tokens')
    .option('--top-p <number>', 'choose among the likeliest tokens that together have this probability')
    .option('--min-p <number>', 'choose among tokens at least this fraction as likely as the likeliest')
    .option('--seed <number>', 'the same seed gives the same answer')
    .option(
      '--stop <text>',
      'end the answer before this text; repeatable',
      (value: string, all: string[]) => [...all, value],
      [],
    )
    .option('--chat-template <file>', "a Jinja template for conversations; default: the model's")
    .option(
      '--max-length <count>',
      "most tokens in prompt and answer together; default: the model's limit, 4096 at most",
    )
    .option('--threads <count>', 'CPU threads; default: one per physical core')
    .option('--device <device>', "'auto', 'cpu', 'cuda' or 'cuda:N'", 'auto')
    .option('--json', 'print one JSON document', false);
}

/**
 * Parses the flags. The library checks the ranges of numbers.
 * @throws UsageError for a value that isn't a number, and for a file that can't be read
 */
export function readGenerationFlags(flags: GenerationFlags): {
  load: LanguageModelOptions;
  generate: GenerateOptions;
} {
  const number = (name: string, value: string | undefined) => {
    if (value === undefined) return undefined;
    if (value.trim() !== '' && Number.isFinite(Number(value))) return Number(value);
    throw new UsageError(`--${name} must be a number, not '${value}'.`);
  };
  const maxLength = number('max-length', flags.maxLength);
  return {
    load: {
      device: parseDevice(flags.device),
      threads: number('threads', flags.threads),
      chatTemplate: flags.chatTemplate === undefined ? undefined : readTemplate(flags.chatTemplate),
      kvCache: { maxLength },
    },
    generate: {
      maxTokens: number('max-tokens', flags.maxTokens),
      temperature: number('temperature', flags.temperature),
      topK: number('top-k', flags.topK),
      topP: number('top-p', flags.topP),
      minP: number('min-p', flags.minP),
      seed: number('seed', flags.seed),
      logprobs: number('logprobs', flags.logprobs),
      stop: flags.stop,
    },
  };
}

function readTemplate(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`--chat-template can't be read: ${(error as Error).message}.`);
  }
}

/** '12 + 64 tokens (8 from the cache), first after 40 ms, then 53.1 tokens/s' */
export function generationSummary({ usage, timing }: Generation): string {
  const { promptTokens, cachedTokens, completionTokens } = usage;
  const cached = cachedTokens > 0 ? ` (${cachedTokens} from the cache)` : '';
  const rest = timing.totalMs - timing.firstTokenMs;
  const rate =
    completionTokens > 1 ? `, then ${((1000 * (completionTokens - 1)) / rest).toFixed(1)} tokens/s` : '';
  return `${promptTokens} + ${completionTokens} tokens${cached}, first after ${timing.firstTokenMs.toFixed(0)} ms${rate}`;
}

/** Passes on an answer's text as it comes. */
export async function follow(
  chunks: AsyncGenerator<GenerationChunk, Generation>,
  show: (text: string) => void,
): Promise<Generation> {
  for (;;) {
    const { done, value } = await chunks.next();
    if (done) return value;
    show(value.text);
  }
}

/** `generate DIR PROMPT`: continues a text. */
export function addGenerateCommand(program: Command): void {
  addGenerationFlags(
    program
      .command('generate')
      .description('continue a text with a language model, and show the answer as it comes')
      .argument('<model>', 'folder that optimum or onnxruntime-genai exported, or ONNX file')
      .argument('<prompt>', "the text; '-' reads standard input, without the newline at its end")
      .option(
        '--logprobs <count>',
        'with --json: log-probabilities of the tokens, and of this many of the likeliest',
      )
      .option('--chat', "treat the prompt as a question, and apply the model's chat template", false),
  ).action(generate);
}

async function generate(
  source: string,
  given: string,
  flags: GenerationFlags & { chat: boolean },
): Promise<void> {
  const options = readGenerationFlags(flags);
  const progress = progressLine();
  progress.show('loading …');
  const started = performance.now();
  const model = await LanguageModel.load(source, options.load).finally(() => progress.clear());
  try {
    const loadMs = performance.now() - started;
    // echo and editors write a newline at the end, which isn't part of the prompt.
    const prompt = given === '-' ? (await readText(process.stdin)).replace(/\r?\n$/, '') : given;
    const messages = [{ role: 'user' as const, content: prompt }];
    const chunks = model.stream(flags.chat ? messages : prompt, options.generate);
    const generation = await follow(chunks, (text) => {
      if (!flags.json) process.stdout.write(text);
    });
    if (!flags.json) {
      print('');
      if (process.stderr.isTTY) process.stderr.write(`${generationSummary(generation)}\n`);
      return;
    }
    const { device, why, runtime, kvCache } = model;
    const { mode, bytesReserved, bytesUsed } = kvCache;
    const cache = { mode, why: kvCache.why, bytesReserved, bytesUsed };
    print(
      JSON.stringify(
        { model: source, device, why, runtime, loadMs, kvCache: cache, prompt, ...generation },
        null,
        2,
      ),
    );
  } finally {
    await model.dispose();
  }
}
