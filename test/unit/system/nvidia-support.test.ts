// NVIDIA's tables, from its release notes and support matrices.
import { describe, expect, test } from 'vitest';
import { flavoursFor, newestCuda, versionAtLeast } from '../../../dist/system/nvidia-support.js';

test.each([
  ['2.36', '2.34', true],
  ['2.34', '2.34', true],
  ['2.4', '2.34', false],
  ['580.65.06', '580.65.06', true],
  ['580.65', '580.65.06', false],
  ['535.183.01', '535', true],
  ['20.20.2', '20', true],
])('version %s is at least %s: %s', (version, floor, expected) => {
  expect(versionAtLeast(version, floor)).toBe(expected);
});

// CUDA Toolkit release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility".
test.each([
  ['580.65.06', 13],
  ['590.10', 13],
  ['575.57.08', 12],
  ['535.54.03', 12],
  ['525.60.13', 12],
  ['520.61.05', undefined],
  ['470.256.02', undefined],
])('driver %s runs CUDA %s', (driver, cuda) => {
  expect(newestCuda(driver)).toBe(cuda);
});

describe('flavours and GPUs', () => {
  test.each<[string, string, string[]]>([
    ['V100', '7.0', []],
    ['Tesla P100', '6.0', []],
    ['T4', '7.5', ['trt10', 'trt11', 'rtx']],
    ['A100', '8.0', ['trt10', 'trt11', 'rtx']],
    ['RTX 3090', '8.6', ['trt10', 'trt11', 'rtx']],
    ['Orin', '8.7', ['trt10', 'trt11']],
    ['RTX 4090', '8.9', ['trt10', 'trt11', 'rtx']],
    ['H100', '9.0', ['trt10', 'trt11']],
    ['B200', '10.0', ['trt10', 'trt11']],
    ['RTX 5090', '12.0', ['trt10', 'trt11', 'rtx']],
    ['GB10', '12.1', ['trt10', 'trt11', 'rtx']],
    ['a later one', '13.0', ['trt11']],
  ])('%s (%s)', (_, capability, flavours) => {
    expect(flavoursFor(capability)).toEqual(flavours);
  });
});
