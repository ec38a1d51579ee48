// The frames of a picture or a clip, decoded when they are asked for: animated WebP, PNG, GIF and AVIF by WebCodecs'
// ImageDecoder, films by <video>. Decoded frames are kept as long as they fit into a budget, so a short clip is decoded
// once, and a long one never fills the memory.

const BUDGET = 64 << 20; // bytes of decoded frames that one clip may keep
const FEWEST = 4; // frames that are kept whatever they take
const PAINTING = 200; // milliseconds that a film's frame may take to come after its seek
const RATE = 16; // frames per second where neither the file nor the caller tells them

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

/** Tell the type of a file from its first bytes; names and declared types are often wrong. */
export function typeOf(bytes) {
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 12) === "WEBP") return "image/webp";
  if (text(bytes, 1, 4) === "PNG") return "image/png";
  if (text(bytes, 0, 3) === "GIF") return "image/gif";
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "image/jpeg";
  if (text(bytes, 4, 8) === "ftyp") return /avi[fs]/.test(text(bytes, 8, 12)) ? "image/avif" : "video/mp4";
  if (bytes[0] === 0x1a && bytes[1] === 0x45) return "video/webm";
  return "";
}

/**
 * Open a picture or a clip.
 * @param source a Blob, or an address on this server.
 * @param fps, frames what the caller knows of the clip; needed only where the file does not tell (WebM).
 * @param mp4 the same clip as MP4, for browsers without ImageDecoder.
 */
export async function openFrames(source, { fps = 0, frames = 0, mp4 = "", signal } = {}) {
  const blob = source instanceof Blob ? source : await download(source, signal);
  const bytes = new Uint8Array(await blob.slice(0, 32).arrayBuffer());
  const type = typeOf(bytes);
  if (type.startsWith("video/")) return openFilm(blob.slice(0, blob.size, type), { fps, frames });
  if (type && "ImageDecoder" in window && (await ImageDecoder.isTypeSupported(type))) {
    const animation = await openAnimation(blob, type, { fps, transparent: showsThrough(bytes, type) });
    if (animation) return animation;
  } else if (mp4) return openFrames(mp4, { fps, frames, signal });
  const picture = await createImageBitmap(blob); // upright, as its EXIF says
  return new Frames({ width: picture.width, height: picture.height, seconds: [1], transparent: showsThrough(bytes, type), decode: async () => picture, release() {} });
}

/** Whether a file may have alpha: WebP says so in its header (RFC 9649, 2.7.1), of others the kind does. */
function showsThrough(bytes, type) {
  if (type !== "image/webp") return type !== "image/jpeg";
  return text(bytes, 12, 16) !== "VP8 " && (text(bytes, 12, 16) === "VP8L" || (bytes[20] & 0x10) > 0);
}

/** Whether a picture lets what is under it be seen. Animated WebP has alpha also to leave pixels as they were. */
export function seesThrough(picture) {
  const scale = Math.min(256 / Math.max(picture.width, picture.height), 1);
  const canvas = new OffscreenCanvas(Math.ceil(picture.width * scale), Math.ceil(picture.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, Math.floor(picture.width * scale), Math.floor(picture.height * scale));
  return data.some((value, i) => i % 4 === 3 && value < 255);
}

/** The frames of a clip that the caller has as pictures, one a frame. */
export async function framesOf(blobs, { fps = RATE } = {}) {
  const first = await createImageBitmap(blobs[0]);
  const { width, height } = first;
  first.close();
  const seconds = blobs.map(() => 1 / fps);
  return new Frames({ width, height, seconds, transparent: true, decode: (index) => createImageBitmap(blobs[index]), release() {} });
}

async function download(address, signal) {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(`${address}: status ${response.status}`);
  return response.blob();
}

async function openAnimation(blob, type, { fps, transparent }) {
  const decoder = new ImageDecoder({ data: await blob.arrayBuffer(), type });
  try {
    await decoder.tracks.ready;
    await decoder.completed;
    const count = decoder.tracks.selectedTrack.frameCount;
    if (count < 2) {
      decoder.close();
      return null; // a still picture, which createImageBitmap also turns upright
    }
    const { image } = await decoder.decode({ frameIndex: 0 });
    const known = { width: image.displayWidth, height: image.displayHeight, transparent };
    const own = (image.duration || 1e5) / 1e6;
    image.close();
    const seconds = Array(count).fill(fps ? 1 / fps : own); // of the frames that were not decoded, the first one's
    const decode = async (index) => {
      const { image } = await decoder.decode({ frameIndex: index });
      if (!fps && image.duration) seconds[index] = image.duration / 1e6;
      const bitmap = await createImageBitmap(image);
      image.close();
      return bitmap;
    };
    return new Frames({ ...known, seconds, timed: Boolean(fps), decode, release: () => decoder.close() });
  } catch (error) {
    decoder.close();
    throw error;
  }
}

async function openFilm(blob, { fps, frames }) {
  const film = document.createElement("video");
  const address = URL.createObjectURL(blob);
  const release = () => {
    film.removeAttribute("src");
    film.load(); // gives the decoder back
    URL.revokeObjectURL(address);
  };
  Object.assign(film, { muted: true, playsInline: true, preload: "auto", src: address });
  try {
    await heard(film, "loadeddata");
    const told = fps && frames ? null : await rateOf(blob);
    const rate = fps || told?.fps || RATE;
    const count = frames || (!fps && told?.count) || Math.max(Math.round(film.duration * rate), 1);
    const decode = async (index) => {
      const time = Math.min((index + 0.5) / rate, film.duration - 1e-3); // in its middle: no rounding finds a neighbour
      if (film.currentTime !== time) {
        const there = painted(film, time, 1 / rate);
        film.currentTime = time;
        await heard(film, "seeked");
        await there;
      }
      return createImageBitmap(film);
    };
    const known = { width: film.videoWidth, height: film.videoHeight, transparent: blob.type === "video/webm" };
    return new Frames({ ...known, seconds: Array(count).fill(1 / rate), decode, release });
  } catch (error) {
    release();
    throw error;
  }
}

/** Wait until a film shows the frame of a time: "seeked" may come before it, and an earlier seek's frame too. */
function painted(film, time, duration) {
  if (!film.requestVideoFrameCallback) return null;
  return new Promise((resolve) => {
    let asked;
    const look = (_, { mediaTime }) => (time - duration < mediaTime && mediaTime <= time ? resolve() : ask());
    const ask = () => (asked = film.requestVideoFrameCallback(look));
    ask();
    setTimeout(() => (film.cancelVideoFrameCallback(asked), resolve()), PAINTING); // its clock may be another one
  });
}

function heard(film, event) {
  return new Promise((resolve, reject) => {
    const listen = new AbortController();
    const once = (name, then) => film.addEventListener(name, () => (listen.abort(), then()), { signal: listen.signal });
    once(event, resolve);
    once("error", () => reject(new Error(film.error?.message || "this browser cannot play the film")));
    once("emptied", () => reject(new DOMException("closed", "AbortError")));
  });
}

/** Return an MP4's frame rate and number of frames from its tables (ISO 14496-12: mdhd, stts), null without them. */
async function rateOf(blob) {
  for (let at = 0; at + 16 <= blob.size; ) {
    const head = new DataView(await blob.slice(at, at + 16).arrayBuffer());
    const size = head.getUint32(0) === 1 ? Number(head.getBigUint64(8)) : head.getUint32(0);
    if (head.getUint32(4) === 0x6d6f6f76) return rateIn(new DataView(await blob.slice(at, at + size).arrayBuffer()), 8); // moov
    if (size < 8) break;
    at += size;
  }
  return null;
}

function rateIn(view, from) {
  let scale = 0;
  let isVideo = false;
  let found = null;
  const walk = (at, end) => {
    while (at + 8 <= end && !found) {
      const [size, name] = [view.getUint32(at), view.getUint32(at + 4)];
      if (size < 8) return;
      if (name === 0x7472616b) isVideo = false; // trak: the next one
      if ([0x7472616b, 0x6d646961, 0x6d696e66, 0x7374626c].includes(name)) walk(at + 8, at + size); // trak mdia minf stbl
      else if (name === 0x6d646864) scale = view.getUint32(at + (view.getUint8(at + 8) ? 28 : 20)); // mdhd
      else if (name === 0x68646c72) isVideo = view.getUint32(at + 16) === 0x76696465; // hdlr: vide
      else if (name === 0x73747473 && isVideo) {
        let [count, ticks] = [0, 0];
        for (let i = 0; i < view.getUint32(at + 12); i++) {
          const samples = view.getUint32(at + 16 + 8 * i);
          count += samples;
          ticks += samples * view.getUint32(at + 20 + 8 * i);
        }
        if (count && ticks) found = { count, fps: (count * scale) / ticks };
      }
      at += size;
    }
  };
  walk(from, view.byteLength);
  return found;
}

/** Frames by number, as bitmaps that this object owns: draw them at once, don't close them. */
export class Frames {
  #decode;
  #release;
  #kept = new Map(); // number: promise of a bitmap, the latest used last
  #turn = Promise.resolve(); // decoders take one frame after the other
  #closed = false;

  /** @param timed whether `seconds`, how long each frame is shown, are known before it is decoded. */
  constructor({ width, height, seconds, transparent, decode, release, timed = true }) {
    Object.assign(this, { width, height, seconds, transparent, timed, count: seconds.length });
    this.#decode = decode;
    this.#release = release;
    this.room = Math.max(Math.floor(BUDGET / (4 * width * height)), FEWEST);
  }

  /** How many decoded frames are held. */
  get held() {
    return this.#kept.size;
  }

  get duration() {
    return this.timeOf(this.count);
  }

  /** Learn how long each frame is shown. */
  async measure() {
    for (let index = 0; index < this.count && !this.timed; index++) await this.at(index);
    this.timed = true;
  }

  /** When a frame begins, in seconds. */
  timeOf(index) {
    return this.seconds.slice(0, index).reduce((sum, one) => sum + one, 0);
  }

  /** The frame that is shown at a time; after the end the last one stays. */
  numberAt(time) {
    let [frame, end] = [0, this.seconds[0]];
    while (end <= time + 1e-4 && frame < this.count - 1) end += this.seconds[++frame];
    return frame;
  }

  at(index) {
    if (this.#closed) return Promise.reject(new DOMException("closed", "AbortError"));
    const known = this.#kept.get(index);
    this.#kept.delete(index);
    const frame = known ?? this.#next(index);
    this.#kept.set(index, frame);
    if (this.#kept.size > this.room) this.#drop(this.#kept.keys().next().value);
    return frame;
  }

  #next(index) {
    const frame = this.#turn.then(() => this.#decode(index));
    this.#turn = frame.catch(() => this.#kept.delete(index));
    return frame;
  }

  #drop(index) {
    const frame = this.#kept.get(index);
    this.#kept.delete(index);
    frame.then((bitmap) => bitmap.close()).catch(() => {});
  }

  /** Give back all memory; what is still being decoded is dropped when it is done. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    for (const index of [...this.#kept.keys()]) this.#drop(index);
    this.#turn.finally(this.#release);
  }
}
