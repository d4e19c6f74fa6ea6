/** Room for a run, found before its first step, and on a card held. */
import { log } from "../config.ts";
import { device, deviceReport } from "../device.ts";
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";

/** Bytes of a step as the plan has them, and what would make it smaller. */
export interface Need {
  /** At the peak of a step, with parameters and state. */
  bytes: number;
  /** Of these, parameters and state: what no smaller batch saves. */
  fixed: number;
  batch: number;
  /** The smallest batch of the method. */
  least: number;
  /** Bytes with --recompute, where that can still be given. */
  recomputed?: number;
}

/** What operations need to work in, on top of tensors, and what is held beyond that where there is room. */
const WORK = 64 * 2 ** 20;
const SPARE = { share: 0.05, bytes: 192 * 2 ** 20 };

/** Bytes for the user. */
export const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

/** What the user can do where `room` bytes are to be had: the largest batch that fits, --recompute, or a smaller patch. */
function remedy({ bytes, fixed, batch, least, recomputed }: Need, room: number): string {
  const fits = Math.floor((room - fixed) / ((bytes - fixed) / batch));
  const ways = [
    fits >= least && fits < batch ? `--batch ${fits}` : "",
    recomputed !== undefined && recomputed <= room ? "--recompute" : "",
  ].filter(Boolean);
  return ways.join(" or ") || "a smaller --patch";
}

/**
 * Holds the memory of a step on the card in use, so that no step asks the driver for more.
 * @returns bytes to be had on the card, the run's own included
 * @throws UserError when the card has less: how much it lacks, what other programs hold of it, and what to change
 */
export function holdRoom(planned: Need): number {
  const bytes = planned.bytes + WORK;
  const recomputed = planned.recomputed && planned.recomputed + WORK;
  const need = { ...planned, bytes, recomputed, fixed: planned.fixed + WORK };
  const { card, memory, live } = deviceReport();
  const free = native().vx_device_free_bytes();
  const room = free + live;
  if (need.bytes > room) {
    const taken = memory - room;
    const others = taken > 0.05 * memory ? `; other programs hold ${gib(taken)}` : "";
    throw new UserError(
      `a step needs ${gib(need.bytes)}, ${card} has ${gib(room)} free of ${gib(memory)}${others}: use ${
        remedy(need, room)
      }`,
    );
  }
  const least = need.bytes - live;
  const wanted = Math.min(least * (1 + SPARE.share) + SPARE.bytes, free);
  // A card whose free memory is in parts gives them as they are asked for.
  if (wanted > 0 && !native().vx_device_reserve(wanted)) native().vx_device_reserve(Math.max(0, least));
  return room;
}

/**
 * Says what a step will need, and holds it where a card computes.
 * @param fix what to change where the machine's memory is too small
 * @throws UserError where this machine or its GPU has less
 */
export function makeRoom(need: Need, fix: string): void {
  const { bytes } = need;
  if (device() === "cuda") {
    const room = holdRoom(need);
    return log(`memory: a step needs ${gib(bytes)} of the GPU at its peak, of ${gib(room)} that are free`);
  }
  const machine = native().vx_machine_bytes();
  log(`memory: tensors take ${gib(bytes)} at the peak of a step${machine ? `, of ${gib(machine)}` : ""}`);
  if (machine && bytes > machine) {
    throw new UserError(`a step needs ${gib(bytes)} of memory, this machine has ${gib(machine)}: ${fix}`);
  }
}
