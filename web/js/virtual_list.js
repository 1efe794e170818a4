/** Which rows of a long list of equal rows are to be drawn. */

/**
 * @param {{top: number, height: number, row: number, count: number, spare?: number}} view
 *   `top` and `height` of what is seen, and `row`, in pixels; `spare` rows are drawn above and below
 * @returns {{first: number, last: number}} indices of the first row to draw and of the one after the last
 */
export function visibleRows({ top, height, row, count, spare = 4 }) {
  const first = Math.max(0, Math.floor(top / row) - spare);
  const last = Math.min(count, Math.ceil((top + height) / row) + spare);
  return { first: Math.min(first, last), last };
}

/** The scroll position that shows row `index` whole, moving as little as it can. */
export function scrollTo(index, { top, height, row }) {
  if (index * row < top) return index * row;
  return Math.max(top, (index + 1) * row - height);
}
