import type { NativeCuda, NativeGpu } from '../../system/native/cuda.js';
import type { DriverFiles } from '../../system/nvidia-driver.js';
import {
  driverOfTensorRT,
  flavourNames,
  flavoursFor,
  lastTensorRT,
  newestCuda,
  productOf,
  runsOn,
  versionAtLeast,
} from '../../system/nvidia-support.js';
import type { TensorRTLibrary } from '../../system/tensorrt-library.js';
import type { TensorRTPackage } from '../../system/tensorrt-package.js';

/** Something that this machine can or can't do. */
export interface Finding {
  readonly works: boolean;
  /** The thing, e.g. 'Run models on the CPU'. */
  readonly what: string;
  /** What it works with, or the reason why it doesn't work. */
  readonly detail: string;
  /** What to do, if it doesn't work or works in a way that may not be intended. */
  readonly remedy?: string;
}

/** The facts about a machine's GPUs and TensorRT libraries. */
export interface Facts {
  readonly files: DriverFiles;
  readonly cuda: NativeCuda;
  /** The version in the name of libcuda's file. */
  readonly libcuda?: string;
  /** The preferred one first. */
  readonly tensorrt: readonly (TensorRTLibrary & TensorRTPackage)[];
  /** `CUDA_VISIBLE_DEVICES`. */
  readonly visibleDevices?: string;
}

/** Finds what works on this machine's GPUs and what doesn't, with at most one remedy per finding. */
export function diagnose(facts: Facts): Finding[] {
  const driver = driverProblem(facts);
  const gpus = driver
    ? [{ works: false, what: 'Run engines on a GPU', ...driver }]
    : facts.cuda.gpus.map((gpu) => gpuFinding(gpu, facts));
  return [...gpus, ...hiddenGpus(facts), ...driverConflicts(facts), ...brokenPairs(facts), ...rivals(facts)];
}

/** A machine where CUDA doesn't work. */
interface Failure extends DriverFiles {
  /** The error as a sentence, with CUDA's own name and number. */
  readonly error: string;
  /** The CUresult (cuda.h); NaN if no call was made. */
  readonly code: number;
  /** The path of libcuda; '' if there is none. */
  readonly library: string;
  readonly libcuda: string | undefined;
  readonly visibleDevices: string | undefined;
}

interface Rule {
  applies(failure: Failure): boolean;
  /** The meaning of the error; if absent, only the error is shown. */
  readonly meaning?: string | ((failure: Failure) => string);
  readonly remedy: string | ((failure: Failure) => string);
}

const shareGpus =
  "Start the container with its GPUs: `docker run --gpus all …`, with NVIDIA's Container Toolkit on the host; in " +
  'Kubernetes, with a limit of nvidia.com/gpu.';
const restart = 'Restart the machine, which loads the kernel module of the installed driver.';
const folderOf = (file: string) => file.slice(0, file.lastIndexOf('/'));
const isCompat = (library: string) => library.includes('/compat/');

/** Reasons for a missing libcuda; the first that applies is used. */
const missingDriver: readonly Rule[] = [
  {
    applies: ({ wsl }) => wsl,
    meaning: 'Under WSL 2, the driver is installed in Windows.',
    remedy: "Install NVIDIA's driver for Windows, not one inside WSL; then run `wsl --shutdown`.",
  },
  {
    applies: ({ container, kernelModule, devices, onPciBus }) =>
      container && (kernelModule !== undefined || devices || onPciBus),
    meaning: 'The machine has an NVIDIA GPU, but this container has no access to its driver.',
    remedy: shareGpus,
  },
  {
    applies: ({ kernelModule }) => kernelModule !== undefined,
    meaning: ({ kernelModule }) =>
      `The driver's kernel module ${kernelModule} is loaded, but its CUDA library is missing.`,
    remedy: ({ kernelModule }) =>
      `Install the CUDA library of driver ${kernelModule} (Debian: libcuda1; Ubuntu: libnvidia-compute-${kernelModule!.split('.')[0]}).`,
  },
  {
    applies: ({ onPciBus }) => onPciBus,
    meaning: 'An NVIDIA GPU is on the PCI bus, but no driver is installed.',
    remedy: `Install NVIDIA's driver ${driverOfTensorRT[13]} or newer.`,
  },
  { applies: () => true, remedy: "Compile for a GPU elsewhere with options.target, such as 'sm_89'." },
];

/** Reasons why libcuda finds no working GPU; the first that applies is used. */
const failingDriver: readonly Rule[] = [
  {
    // CUDA_ERROR_STUB_LIBRARY
    applies: ({ code, library }) => code === 34 || library.includes('/stubs/'),
    meaning: ({ library }) => `${library} is a stub to link against, not the driver.`,
    remedy: ({ library }) => `Remove ${folderOf(library)} from LD_LIBRARY_PATH.`,
  },
  {
    applies: ({ wsl, library }) => wsl && !library.startsWith('/usr/lib/wsl/'),
    meaning: ({ library }) => `Under WSL 2, the driver is installed in Windows, and ${library} hides it.`,
    remedy: 'Remove the Linux driver that is installed inside WSL.',
  },
  {
    // CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
    applies: ({ code }) => code === 804,
    meaning: ({ library }) => `${library} (cuda-compat) does not work with this GPU.`,
    remedy: 'Remove the compat folder from LD_LIBRARY_PATH, or update the driver.',
  },
  {
    applies: ({ kernelModule, libcuda, library }) =>
      kernelModule !== undefined && libcuda !== undefined && kernelModule !== libcuda && !isCompat(library),
    meaning: ({ kernelModule, libcuda, library }) =>
      `Driver/library version mismatch: the kernel module is ${kernelModule}, the library ${library} is ${libcuda}.`,
    remedy: ({ container }) =>
      container ? "Recreate the container: it has the library of the host's previous driver." : restart,
  },
  {
    // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
    applies: ({ code }) => code === 803,
    meaning: ({ library }) =>
      `Driver/library version mismatch: the kernel module and ${library} are of different versions.`,
    remedy: restart,
  },
  {
    // CUDA_ERROR_SYSTEM_NOT_READY
    applies: ({ code }) => code === 802,
    meaning: "The GPUs are waiting for NVIDIA's fabric manager.",
    remedy: 'Start it, in the same version as the driver: `sudo systemctl start nvidia-fabricmanager`.',
  },
  {
    applies: ({ visibleDevices }) =>
      visibleDevices !== undefined && !/^\s*(\d|GPU-|MIG-)/.test(visibleDevices),
    meaning: ({ visibleDevices }) => `CUDA_VISIBLE_DEVICES='${visibleDevices}' hides every GPU.`,
    remedy: 'Unset CUDA_VISIBLE_DEVICES.',
  },
  {
    applies: ({ container, devices }) => container && !devices,
    meaning: "This container has no GPU's device files.",
    remedy: shareGpus,
  },
  {
    applies: ({ kernelModule, wsl }) => kernelModule === undefined && !wsl,
    meaning: "The driver's kernel module is not loaded.",
    remedy:
      'Load it with `sudo modprobe nvidia`; after an installation, or where nouveau is loaded, restart the machine.',
  },
  {
    // CUDA_ERROR_NO_DEVICE, or a count of 0
    applies: ({ code }) => code === 100 || Number.isNaN(code),
    remedy: 'Look for the GPU with `lspci -d 10de:`, and for its errors with `sudo dmesg | grep NVRM`.',
  },
  {
    applies: () => true,
    remedy: 'Look for the reason with `sudo dmesg | grep NVRM`; restarting the machine clears most errors.',
  },
];

/** The reason why CUDA doesn't work, with its remedy; undefined if it works. */
function driverProblem(facts: Facts): Pick<Finding, 'detail' | 'remedy'> | undefined {
  const { files, cuda, libcuda, visibleDevices } = facts;
  if (cuda.error === undefined) return undefined;
  const { error, library } = cuda;
  const code = Number(/\((\d+)\)/.exec(error)?.[1]);
  const failure: Failure = { ...files, error, code, library, libcuda, visibleDevices };
  const rule = (library === '' ? missingDriver : failingDriver).find(({ applies }) => applies(failure))!;
  const say = (text: Rule['remedy']) => (typeof text === 'string' ? text : text(failure));
  return {
    detail: rule.meaning === undefined ? error : `${say(rule.meaning)} ${error}`,
    remedy: say(rule.remedy),
  };
}

/** Formats [8, 9] as '8.9'. */
export function computeCapability(gpu: NativeGpu): string {
  return gpu.computeCapability.join('.');
}

function gpuFinding(gpu: NativeGpu, { cuda, tensorrt }: Facts): Finding {
  const capability = computeCapability(gpu);
  const what = `Run engines on ${gpu.name}`;
  const fitting = flavoursFor(capability);
  if (cuda.driver && newestCuda(cuda.driver) === undefined) {
    return {
      works: false,
      what,
      detail: `Driver ${cuda.driver} is too old for every CUDA version that TensorRT is built for here.`,
      remedy: `Update the driver to ${driverOfTensorRT[13]} or newer.`,
    };
  }
  if (fitting.length === 0) {
    const last = lastTensorRT[capability];
    return {
      works: false,
      what,
      detail: `Compute capability ${capability} is not supported: ${
        last
          ? `its last TensorRT is ${last}, and the flavours here are newer`
          : 'the TensorRT flavours here support 7.5 to 12.1'
      }.`,
      remedy: "Run models on the CPU (device: 'cpu'), or use a GPU of compute capability 7.5 or higher.",
    };
  }
  const names = fitting.map((flavour) => flavourNames[flavour]).join(', ');
  const installed = tensorrt.filter(({ flavour, error }) => !error && runsOn(flavour, capability));
  if (installed.length === 0) {
    const unfit = tensorrt.find(({ error }) => !error);
    return {
      works: false,
      what,
      detail: `Compute capability ${capability} needs ${names}${
        unfit
          ? `; ${flavourNames[unfit.flavour]} ${unfit.version} does not run on it`
          : ', and none was found'
      }.`,
      remedy: fitting.includes('rtx')
        ? 'npx node-tensorrt libs install rtx'
        : "Install TensorRT from NVIDIA's packages, and point NODE_TENSORRT_TENSORRT_PATH at its folder.",
    };
  }
  const usable = installed.filter((library) => driverConflict(library, cuda) === undefined);
  if (usable.length === 0) {
    return {
      works: false,
      what,
      detail: `Compute capability ${capability}: ${title(installed[0]!)} runs on it, but not with this driver.`,
      remedy: driverConflict(installed[0]!, cuda)!.remedy,
    };
  }
  return {
    works: true,
    what,
    detail: `${usable.map(title).join(', ')}, for compute capability ${capability} (options.target: 'sm_${capability.replace('.', '')}')`,
  };
}

/** GPUs that nvidia-smi shows but CUDA doesn't. */
function hiddenGpus({ cuda, visibleDevices }: Facts): Finding[] {
  if (visibleDevices === undefined || cuda.error !== undefined) return [];
  return [
    {
      works: true,
      what: 'GPUs that this process sees',
      detail: `CUDA_VISIBLE_DEVICES=${visibleDevices} leaves ${cuda.gpus.length}; the others are hidden.`,
      remedy: 'Unset CUDA_VISIBLE_DEVICES to see all.',
    },
  ];
}

function driverConflicts({ cuda, tensorrt }: Facts): Finding[] {
  return tensorrt.flatMap((library) => {
    const conflict = driverConflict(library, cuda);
    return conflict ? [{ works: false, what: `${title(library)} with this driver`, ...conflict }] : [];
  });
}

/** The conflict of a library that is built for a newer CUDA than the driver supports. */
function driverConflict(
  { path, flavour, cuda: major }: TensorRTLibrary & TensorRTPackage,
  { driver, cudaVersion, library }: NativeCuda,
): { detail: string; remedy: string } | undefined {
  // cuda-compat supports a newer CUDA than the driver's version suggests.
  if (!driver || major === undefined || isCompat(library)) return undefined;
  const floor = driverOfTensorRT[major];
  if (versionAtLeast(driver, floor)) return undefined;
  const update = `Update the driver to ${floor} or newer`;
  const forCuda12 =
    flavour === 'rtx'
      ? 'Install the build for CUDA 12, which this driver runs: npx node-tensorrt libs install rtx'
      : `${update}, or install the same release's package for CUDA 12.`;
  return {
    detail: `${path} is built for CUDA ${major}, which needs driver ${floor} or newer; this is ${driver}${
      cudaVersion ? ` (CUDA ${cudaVersion})` : ''
    }.`,
    remedy: major === 13 && versionAtLeast(driver, driverOfTensorRT[12]) ? forCuda12 : `${update}.`,
  };
}

/** A library whose ONNX parser is from a different release. */
function brokenPairs({ tensorrt }: Facts): Finding[] {
  return tensorrt.flatMap((library) => {
    const { version, parser, path } = library;
    if (!version || !parser || sameRelease(version, parser)) return [];
    return [
      {
        works: false,
        what: `${title(library)} and its ONNX parser`,
        detail: `${path} is ${version}, and the parser beside it ${parser}: they must be from the same release.`,
        remedy: 'Install both from the same NVIDIA package.',
      },
    ];
  });
}

/** True for '10.15.1' and '10.15.1.29', for example. */
function sameRelease(a: string, b: string): boolean {
  const parts = (version: string) => version.split('.').slice(0, 3).join('.');
  return parts(a) === parts(b);
}

/** Several versions of the same flavour, only one of which is used. */
function rivals({ tensorrt }: Facts): Finding[] {
  const usable = tensorrt.filter(({ error }) => !error);
  return Object.entries(flavourNames).flatMap(([flavour, name]) => {
    const [used, ...others] = usable.filter((library) => library.flavour === flavour);
    const other = others.find(({ version }) => version !== used!.version);
    if (!other) return [];
    const place = ({ version, path, source }: TensorRTLibrary) => `${version} in ${path} (${source})`;
    return [
      {
        works: true,
        what: `Which ${name} is used`,
        detail: `${place(used!)} is used, and ${place(other)} is not.`,
        remedy: `Remove one, or name one: NODE_TENSORRT_TENSORRT_PATH=${folderOf(used!.path)}`,
      },
    ];
  });
}

function title({ flavour, version }: TensorRTLibrary): string {
  return version ? `${productOf(flavour)} ${version}` : flavourNames[flavour];
}
