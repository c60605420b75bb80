import { existsSync } from 'node:fs';
import path from 'node:path';
import { namesIn, textOf } from './system-files.js';

/** The facts about NVIDIA's driver that the system's files give. Native code asks the driver itself. */
export interface DriverFiles {
  /** The version of the loaded kernel module, e.g. '580.65.06'; undefined if none is loaded, and under WSL. */
  readonly kernelModule: string | undefined;
  /** True if there are devices to open: /dev/nvidia0 … or, under WSL, /dev/dxg. */
  readonly devices: boolean;
  /** True if NVIDIA GPUs are on the PCI bus, with or without a driver. */
  readonly onPciBus: boolean;
  /** Windows Subsystem for Linux. */
  readonly wsl: boolean;
  /** True in a container, if Docker, Podman or Kubernetes left a sign of it. */
  readonly container: boolean;
}

/** `root` is the root of the system's files. */
export function readDriverFiles(root = '/', env = process.env): DriverFiles {
  const at = (file: string) => path.join(root, file);
  return {
    kernelModule: kernelModuleVersion(at('proc/driver/nvidia/version')),
    devices: existsSync(at('dev/dxg')) || namesIn(at('dev')).some((name) => /^nvidia\d+$/.test(name)),
    onPciBus: namesIn(at('sys/bus/pci/devices')).some((device) => {
      const read = (file: string) => textOf(at(`sys/bus/pci/devices/${device}/${file}`));
      // NVIDIA's vendor number, and the class of display controllers; NVIDIA's sound and network devices aren't GPUs.
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

/** The version of the driver's kernel module, as it reports it itself: '580.65.06'. */
export function kernelModuleVersion(file = '/proc/driver/nvidia/version'): string | undefined {
  return /\s(\d+\.\d+(?:\.\d+)?)\s/.exec(textOf(file))?.[1];
}
