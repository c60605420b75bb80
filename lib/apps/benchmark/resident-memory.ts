import { readFileSync, writeFileSync } from 'node:fs';

/**
 * Physical memory of this process in bytes: now, and its peak since {@link resetPeakMemory}. Linux's VmRSS and VmHWM
 * (proc_pid_status(5)).
 */
export function residentMemory(): { now: number; peak: number } {
  const status = readFileSync('/proc/self/status', 'utf8');
  const kibibytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)![1]);
  return { now: 1024 * kibibytes('VmRSS'), peak: 1024 * kibibytes('VmHWM') };
}

/**
 * Resets the peak to the memory in use now; false if the system doesn't let a process do so (proc_pid_clear_refs(5)).
 */
export function resetPeakMemory(): boolean {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    return true;
  } catch {
    return false;
  }
}
