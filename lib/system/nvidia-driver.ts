import { existsSync } from 'node:fs';
import path from 'node:path';
import { namesIn, textOf } from './system-files.js';

/** What the system's files say of NVIDIA's driver; asking the driver itself is native's part. */
export interface DriverFiles {
  /** The version of the kernel module that is loaded, e.g. '580.65.06'; undefined without one, and under WSL. */
  readonly kernelModule: string | undefined;
  /** Whether there are devices to open: /dev/nvidia0 … or, under WSL, /dev/dxg. */
  readonly devices: boolean;
  /** Whether NVIDIA's GPUs are on the PCI bus, with or without a driver. */
  readonly onPciBus: boolean;
  /** Windows Subsystem for Linux. */
  readonly wsl: boolean;
  /** Whether this is a container, as far as Docker, Podman or Kubernetes left a sign. */
  readonly container: boolean;
}

/** `root` is where the system's files are. */
export function readDriverFiles(root = '/', env = process.env): DriverFiles {
  const at = (file: string) => path.join(root, file);
  return {
    kernelModule: kernelModuleVersion(at('proc/driver/nvidia/version')),
    devices: existsSync(at('dev/dxg')) || namesIn(at('dev')).some((name) => /^nvidia\d+$/.test(name)),
    onPciBus: namesIn(at('sys/bus/pci/devices')).some((device) => {
      const read = (file: string) => textOf(at(`sys/bus/pci/devices/${device}/${file}`));
      // NVIDIA's number, and the class of display controllers: its sound and network devices are no GPUs.
      return read('vendor').startsWith('0x10de') && read('class').startsWith('0x03');
    }),
    wsl: existsSync(at('dev/dxg')) || /microsoft/i.test(textOf(at('proc/version'))),
    container:
      existsSync(at('.dockerenv')) ||
      existsSync(at('run/.containerenv')) ||
      env.KUBERNETES_SERVICE_HOST !== undefined ||
      /docker|containerd|kubepods|libpod/.test(textOf(at('proc/1/cgroup'))),
  };
}

/** The version of the driver's kernel module, as it says itself: '580.65.06'. */
export function kernelModuleVersion(file = '/proc/driver/nvidia/version'): string | undefined {
  return /\s(\d+\.\d+(?:\.\d+)?)\s/.exec(textOf(file))?.[1];
}
