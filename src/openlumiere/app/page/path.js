// Way points of a subject: [x, y], [x, y, size], [x, y, size, degrees], and with a fifth number the time at which a
// point is met, from 0 to 1 of the clip; what is left open is null. As `diffusion.way_points` and `diffusion.layout`.

import { clamp } from "./elements.js";

export const [SIZE, DEGREES, TIME] = [2, 3, 4];
const NUMBERS = 2; // of a point that tells nothing but its place

export const timeOf = (point) => point[TIME] ?? null;
export const isTimed = (points) => points.some((point) => timeOf(point) !== null);

/** Leave out what a point doesn't tell. */
export function plain(point) {
  const kept = [...point];
  while (kept.length > NUMBERS && (kept.at(-1) ?? null) === null) kept.pop();
  return kept.map((number) => number ?? null);
}

/** Points as a command and the API read them: `0.1,0.5 0.9,0.5@0.3`. */
export function pathText(points) {
  return points.map((point) => {
    const numbers = point.slice(0, TIME).filter((number) => (number ?? null) !== null).join(",");
    return timeOf(point) === null ? numbers : `${numbers}@${timeOf(point)}`;
  }).join(" ");
}

/** When each point is met: those that don't say are spaced evenly between those that do. */
export function times(points, loop) {
  const given = new Map([[0, timeOf(points[0]) ?? 0]]);
  points.forEach((point, index) => timeOf(point) !== null && given.set(index, timeOf(point)));
  const last = loop ? points.length : points.length - 1;
  if (!given.has(last)) given.set(last, loop ? 1 + given.get(0) : 1);
  const marks = [...given.keys()].sort((a, b) => a - b);
  return points.map((_, index) => {
    const stop = marks.find((mark) => mark >= index);
    const start = marks.findLast((mark) => mark <= index);
    const share = stop === start ? 0 : (index - start) / (stop - start);
    return given.get(start) + share * (given.get(stop) - given.get(start));
  });
}

/**
 * The path through points at count + 1 even times: [x, y, number of the point before], as `path_through` has it. It is
 * a cubic Hermite spline, which is the uniform one of Catmull and Rom (1974) where no point has a time.
 */
export function curve(points, loop, count) {
  let [at, places] = [times(points, loop), points.map(([x, y]) => [x, y])];
  const timed = isTimed(points);
  if (loop) {
    at = [at.at(-1) - 1, ...at, at[0] + 1, (at[1] ?? at[0] + 1) + 1];
    places = [places.at(-1), ...places, places[0], places[1 % places.length]];
  }
  const before = loop ? 1 : 0; // points that were put before the first
  const slope = (a, b, i) => (places[b][i] - places[a][i]) / (at[b] - at[a]);
  const end = places.length - 1;
  const tangent = (n, i) => {
    const beside = [n > 0 ? slope(n - 1, n, i) : null, n < end ? slope(n, n + 1, i) : null].filter((one) => one !== null);
    if (timed && beside.includes(0)) return 0; // what doesn't change stays: a point that is there twice is a stop
    return slope(Math.max(n - 1, 0), Math.min(n + 1, end), i);
  };
  return Array.from({ length: count + 1 }, (_, step) => {
    const time = loop ? step / count : clamp(step / count, at[0], at[end]);
    const n = Math.min(Math.max(at.findLastIndex((one) => one <= time + 1e-9), 0), end - 1);
    const span = at[n + 1] - at[n];
    const t = (time - at[n]) / span;
    return [...[0, 1].map((i) => {
      const [a, b] = [places[n][i], places[n + 1][i]];
      const [from, to] = [tangent(n, i) * span, tangent(n + 1, i) * span];
      return a + t * (from + t * (3 * (b - a) - 2 * from - to + t * (2 * (a - b) + from + to)));
    }), n - before];
  });
}
