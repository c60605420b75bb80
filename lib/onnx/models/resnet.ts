import { describe, invalidArgValue } from '../../base/errors.js';
import { checkPath } from '../../base/options.js';
import { checkSeed, normalNumbers } from '../../base/random.js';
import type { ModelProto } from '../format/model.js';
import { readSafetensors } from '../format/safetensors.js';
import { GraphBuilder, type Value } from '../graph/graph-builder.js';
import { SafetensorsWeights, type Weights } from './weights.js';

/** Options of {@link buildResnet}. */
export interface ResnetOptions {
  /** The number of layers with weights. Defaults to 50. */
  depth?: 50 | 101 | 152;
  /** The number of classes. Defaults to 1000, the number in ImageNet. */
  classes?: number;
  /** A safetensors file with torchvision's names (`layer1.0.conv1.weight` …). Defaults to random weights. */
  weights?: string;
  /** The seed of random weights. Defaults to 0. */
  seed?: number;
}

/** Bottleneck blocks per stage: He et al., Deep Residual Learning (2015), table 1. */
const blocks = { 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3] } as const;

/** A bottleneck's last convolution has this many times the channels of its other convolutions. */
const expansion = 4;

/** The epsilon of batch normalisation. This is PyTorch's default. */
const epsilon = 1e-5;

/**
 * Builds the ONNX graph of a ResNet with bottleneck blocks like torchvision's (version 1.5, in which a block's 3×3
 * convolution applies the stride). Batch normalisations are folded into the convolutions before them, as exporters do.
 *
 * Input `input`, float32 `[batch, 3, height, width]`; output `logits`, float32 `[batch, classes]`.
 *
 * @throws TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID (a weight is missing or has another shape),
 *   ERR_MODEL_UNSUPPORTED, ERR_IO; TypeError or RangeError for bad options
 */
export async function buildResnet(options: ResnetOptions = {}): Promise<ModelProto> {
  const { depth = 50, classes = 1000, weights, seed = 0 } = options;
  if (!Object.hasOwn(blocks, depth)) {
    throw invalidArgValue('options.depth', `must be 50, 101 or 152, not ${describe(depth)}.`);
  }
  if (!Number.isSafeInteger(classes) || classes < 1) {
    throw invalidArgValue('options.classes', `must be a whole number above 0, not ${describe(classes)}.`);
  }
  if (weights !== undefined) checkPath(weights, 'options.weights');
  checkSeed(seed, 'options.seed');
  const source =
    weights === undefined ? randomWeights(seed) : new SafetensorsWeights(await readSafetensors(weights));
  return new ResnetGraph(source).build(blocks[depth], classes);
}

/**
 * Makes weights like torchvision's initial ones (He's normal distribution by the fan-out; normalisations change
 * nothing), except that a block's last normalisation has the weight 0.25. With 1, the variance of activations would
 * double at every block, which it doesn't in a trained network.
 */
function randomWeights(seed: number): Weights {
  const normal = normalNumbers(seed);
  return {
    get(name, dims) {
      const values = new Float32Array(dims.reduce((size, dim) => size * dim, 1));
      if (name.endsWith('.bias') || name.endsWith('.running_mean')) return values;
      if (name.endsWith('bn3.weight')) return values.fill(0.25);
      if (dims.length === 1) return values.fill(1);
      const [out = 1, into = 1, ...kernel] = dims;
      const fan = kernel.length > 0 ? kernel.reduce((size, dim) => size * dim, out) : into;
      const deviation = Math.sqrt((kernel.length > 0 ? 2 : 1) / fan);
      for (let i = 0; i < values.length; i++) values[i] = deviation * normal();
      return values;
    },
  };
}

interface Convolution {
  readonly channels: readonly [into: number, out: number];
  readonly kernel: number;
  readonly stride?: number;
}

class ResnetGraph {
  readonly #weights: Weights;
  readonly #g = new GraphBuilder('resnet');

  constructor(weights: Weights) {
    this.#weights = weights;
  }

  build(stages: readonly number[], classes: number): ModelProto {
    const g = this.#g;
    const image = g.input('input', 'float32', ['batch', 3, 'height', 'width']);
    let x = g.op('Relu', [
      this.#convolution('conv1', 'bn1', image, { channels: [3, 64], kernel: 7, stride: 2 }),
    ]);
    x = g.op('MaxPool', [x], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
    let channels = 64;
    stages.forEach((count, stage) => {
      const width = 64 * 2 ** stage;
      for (let i = 0; i < count; i++) {
        const stride = i === 0 && stage > 0 ? 2 : 1;
        x = this.#bottleneck(`layer${stage + 1}.${i}`, x, channels, width, stride);
        channels = width * expansion;
      }
    });
    const pooled = g.op('Flatten', [g.op('GlobalAveragePool', [x])], { axis: 1 });
    const fc = ['fc.weight', 'fc.bias'] as const;
    const weight = this.#initializer(fc[0], [classes, channels]);
    const bias = this.#initializer(fc[1], [classes]);
    const [logits] = g.op('Gemm', [pooled, weight, bias], { transB: 1 }, { name: 'fc', outputs: ['logits'] });
    g.output(logits!, 'float32', ['batch', classes]);
    return g.finish();
  }

  /**
   * Writes a 1×1 convolution to `width` channels, a 3×3 one with the stride and a 1×1 one to four times as many
   * channels, and adds the input.
   */
  #bottleneck(path: string, x: Value, channels: number, width: number, stride: number): Value {
    const g = this.#g;
    const wide = width * expansion;
    const convolution = (index: number, input: Value, details: Convolution) =>
      this.#convolution(`${path}.conv${index}`, `${path}.bn${index}`, input, details);
    const relu = (index: number, value: Value) => g.op('Relu', [value], {}, { name: `${path}.relu${index}` });
    const first = relu(1, convolution(1, x, { channels: [channels, width], kernel: 1 }));
    const second = relu(2, convolution(2, first, { channels: [width, width], kernel: 3, stride }));
    const third = convolution(3, second, { channels: [width, wide], kernel: 1 });
    const shortcut =
      channels === wide && stride === 1
        ? x
        : this.#convolution(`${path}.downsample.0`, `${path}.downsample.1`, x, {
            channels: [channels, wide],
            kernel: 1,
            stride,
          });
    return relu(3, g.op('Add', [third, shortcut], {}, { name: `${path}.add` }));
  }

  /** Writes a convolution without a bias and the normalisation after it as one convolution with a bias. */
  #convolution(path: string, norm: string, x: Value, { channels, kernel, stride = 1 }: Convolution): Value {
    const [into, out] = channels;
    const dims = [out, into, kernel, kernel];
    const weight = Float32Array.from(this.#weights.get(`${path}.weight`, dims));
    const [gamma, beta, mean, variance] = (['weight', 'bias', 'running_mean', 'running_var'] as const).map(
      (name) => this.#weights.get(`${norm}.${name}`, [out]),
    ) as [Float32Array, Float32Array, Float32Array, Float32Array];
    const bias = new Float32Array(out);
    const size = into * kernel * kernel;
    for (let o = 0; o < out; o++) {
      const scale = gamma[o]! / Math.sqrt(variance[o]! + epsilon);
      for (let i = o * size; i < (o + 1) * size; i++) weight[i]! *= scale;
      bias[o] = beta[o]! - mean[o]! * scale;
    }
    const g = this.#g;
    const inputs = [
      x,
      g.initializer(`${path}.weight`, 'float32', dims, weight),
      g.initializer(`${path}.bias`, 'float32', [out], bias),
    ];
    const pad = (kernel - 1) / 2;
    const attributes = {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
    };
    return g.op('Conv', inputs, attributes, { name: path });
  }

  #initializer(name: string, dims: readonly number[]): Value {
    return this.#g.initializer(name, 'float32', dims, this.#weights.get(name, dims));
  }
}
