/** Measured ranges of a model's values. */
export interface Ranges {
  /** The source of the ranges. */
  readonly report: RangesReport;
  /** The ranges of all measured float32 values, by name. */
  readonly values: ReadonlyMap<string, Range>;
}

/**
 * The least and the greatest element of a value over all samples. Both are infinite if an element wasn't a number, and
 * 0 if there were no elements.
 */
export interface Range {
  /** The least element. */
  readonly least: number;
  /** The greatest element. */
  readonly most: number;
}

/** The source of the ranges, or the reason why there are none. */
export type RangesReport =
  | { readonly source: 'calibration'; readonly samples: number }
  | { readonly source: 'random'; readonly samples: number; readonly seed: number }
  | { readonly source: 'none'; readonly reason: string };
