/** The figures of a ranking report. */
import type { TrackResult } from "../eval/ranking.ts";

export interface Figure {
  svg: string;
  caption: string;
}

/** All figures of one track. */
export function figures(_track: TrackResult): Figure[] {
  return [];
}
