/** What can be done with a video, wherever it is shown. */

import * as api from "./api.js";
import { announce } from "./dom.js";
import { again } from "./request.js";
import { failed, toast } from "./toast.js";
import { videos } from "./videos.js";

const UNDO = 50;  // seconds; the server keeps what was deleted for a minute

/** Run something that a click asked for, and say what went wrong. */
export async function tried(work, button) {
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (error) {
    failed(error);
    return undefined;
  } finally {
    if (button) button.disabled = false;
  }
}

export const setFavourite = (video, favourite) => tried(async () => {
  videos.put({ ...videos.get(video.id), favourite });
  try {
    videos.put(await api.setFavourite(video.id, favourite));
  } catch (error) {
    videos.put({ ...videos.get(video.id), favourite: !favourite });
    throw error;
  }
});

export const stop = (video, button) => tried(async () => videos.put(await api.cancel(video.id)), button);

export const remove = (video) => tried(async () => {
  await api.remove(video.id);
  videos.forget(video.id);
  announce("Deleted");
  const run = () => tried(async () => videos.put(await api.restore(video.id)));
  toast("Deleted", { action: { name: "Undo", run }, seconds: UNDO });
});

/** Make it once more; with `seed` null another one. Returns what is then under way. */
export const repeat = (video, options, button) => tried(async () => {
  const made = await again(video, options);
  videos.put(made);
  return made;
}, button);
