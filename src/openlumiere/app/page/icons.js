/** The page's pictograms, drawn on 24 × 24, as strokes in the text's colour. */

const PATHS = {
  text: "M5 6V4h14v2M12 4v16M9 20h6",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.2v.1",
  brush: "M20 4c-4 1-8.5 4.5-10.5 8.5l2 2C15.5 12.5 19 8.5 20 4zM8.5 14c-2 0-3 1.5-3 3.5 0 1-.8 1.7-2 2 4 1.2 7-.5 7-3z",
  change: "M4 4h16v16H4zM8.5 12a3.5 3.5 0 0 1 6-2.4L16 11M15.5 12a3.5 3.5 0 0 1-6 2.4L8 13M16 8v3h-3M8 16v-3h3",
  frame: "M8 8h8v8H8zM4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  style: "M12 3a9 9 0 1 0 0 18c1.3 0 2-.8 2-1.8 0-1.5-1-1.7-1-3 0-1 .8-1.7 2-1.7h2.5c2 0 3.5-1.5 3.5-3.5C21 6.5 17 3 12 3zM7.5 12v.1M9.5 7.7v.1M14.5 7.7v.1",
  extend: "M3 6h8v12H3zM14 12h7M18 9l3 3-3 3",
  smooth: "M3 7v10M9 9v6M15 9v6M21 7v10M6 12h.1M12 12h.1M18 12h.1",
  sharpen: "M12 3l2.2 6.8L21 12l-6.8 2.2L12 21l-2.2-6.8L3 12l6.8-2.2z",
  sticker: "M14 20H7a3 3 0 0 1-3-3V7a3 3 0 0 1 3-3h10a3 3 0 0 1 3 3v7zM14 20v-3a3 3 0 0 1 3-3h3M9 9.5v.1M15 9.5v.1M8.5 13c1 1.3 2 2 3.5 2",
  heart: "M12 20s-7.5-4.5-7.5-10A4.3 4.3 0 0 1 12 7.3 4.3 4.3 0 0 1 19.5 10c0 5.5-7.5 10-7.5 10z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  stop: "M7 7h10v10H7z",
  again: "M19.5 12a7.5 7.5 0 1 1-2.3-5.4L19.5 9M19.5 4v5h-5",
  dice: "M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM8.5 8.5v.1M15.5 8.5v.1M12 12v.1M8.5 15.5v.1M15.5 15.5v.1",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  download: "M12 4v11M7.5 11l4.5 4.5 4.5-4.5M5 20h14",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM15.5 15.5L20 20",
  close: "M6 6l12 12M18 6L6 18",
  upload: "M12 16V5M7.5 9.5L12 5l4.5 4.5M5 20h14",
  clips: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  alert: "M12 4l9 16H3zM12 10v4M12 17v.1",
  check: "M4.5 12.5l5 5 10-11",
  path: "M5 19c0-6 14-4 14-14M5 19v.1M19 5v.1",
  key: "M8 11a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM11 12l9-9M16 7l3 3",
  leave: "M10 4H5v16h5M10 12h10M16.5 8.5L20 12l-3.5 3.5",
};

const SVG = "http://www.w3.org/2000/svg";

/** Return a pictogram that screen readers pass over: what it stands for is said beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
