/** What can be made: the tasks, what each needs, and examples that fill the form. */

const TEXT = {
  "a walking tiger": { prompt: "a tiger walking to the left on a green background" },
  "a growing heart": { prompt: "a red heart growing on a white background", loop: true },
  "a rocket": { prompt: "a rocket moving up on a black background" },
  "a bouncing frog": { prompt: "a frog bouncing on a yellow background", loop: true },
};
const CAT = { source: "example-cat.webp" };

/**
 * `task` is the server's, where it is not the id; `source`: "picture" or "clip"; `prompt`: "needed", "wanted" or
 * "none"; `fields`: the form's, beside those that all tasks have; `files`: of an example, in this folder.
 */
export const TASKS = [
  {
    id: "generate", name: "Text", icon: "text", prompt: "needed", hint: "Say what to show.",
    fields: ["length", "loop", "path"],
    examples: Object.entries(TEXT).map(([name, request]) => ({ name, request })),
  },
  {
    id: "sticker", task: "generate", name: "Sticker", icon: "sticker", prompt: "needed",
    hint: "A looping sticker, as the messenger takes it.",
    fields: ["loop", "path", "sticker"], preset: { loop: true, sticker: { target: "telegram" } },
    examples: [
      {
        request: { prompt: "a waving hand on a transparent background", loop: true }, name: "a waving hand",
        subject: "waving-hand",
      },
      { request: { prompt: "a grinning face bouncing on a yellow background", loop: true }, name: "a grinning face" },
      { request: { prompt: "a heart growing on a white background", loop: true }, name: "a heart" },
      { request: { prompt: "a ghost swaying on a black background", loop: true }, name: "a ghost" },
    ],
  },
  {
    id: "animate", name: "Move", icon: "picture", source: "picture", prompt: "wanted",
    hint: "A picture starts to move.", last: true, fields: ["length", "loop", "path", "rigid"],
    examples: [
      {
        request: { prompt: "a big cat swaying on a blue background" }, name: "a swaying cat",
        files: { source: "example-cat.png" },
      },
      {
        request: { prompt: "a tiger walking to the left on a green background" }, name: "from one picture to another",
        files: { source: "example-right.png", last: "example-left.png" },
      },
    ],
  },
  {
    id: "cinemagraph", name: "Brush", icon: "brush", source: "picture", prompt: "wanted", region: "move",
    hint: "Paint what should move. All else stays still.", fields: ["length", "loop"], preset: { loop: true },
    examples: [
      {
        request: { prompt: "a campfire", loop: true, box: [0.3, 0.25, 0.4, 0.5] }, name: "a burning fire",
        files: { source: "example-campfire.png" },
      },
    ],
  },
  {
    id: "inpaint", name: "Change", icon: "change", source: "clip", prompt: "wanted", region: "change",
    hint: "Paint what should change. All else stays as it is.", fields: ["loop"],
    examples: [
      {
        request: { prompt: "a big dog on a blue background", box: [0.2, 0.15, 0.6, 0.7] }, name: "a dog in place of a cat",
        files: CAT,
      },
    ],
  },
  {
    id: "outpaint", name: "Widen", icon: "frame", source: "clip", prompt: "wanted",
    hint: "Draw more of the picture around a clip.", fields: ["to"],
    examples: [{ request: { prompt: "a big cat swaying on a blue background", to: [16, 9] }, name: "a cat", files: CAT }],
  },
  {
    id: "restyle", name: "Restyle", icon: "style", source: "clip", prompt: "needed",
    hint: "The clip anew, as the prompt says, moving as before.", fields: ["strength", "loop"],
    examples: [
      {
        request: { prompt: "a big fox swaying on a blue background", strength: 0.7 }, name: "a cat becomes a fox", files: CAT,
      },
    ],
  },
  {
    id: "extend", name: "Extend", icon: "extend", source: "clip", prompt: "wanted",
    hint: "The clip goes on from its last frame.", fields: ["length", "rigid"],
    examples: [{ request: { prompt: "a big cat swaying on a blue background" }, name: "a cat sways on", files: CAT }],
  },
  {
    id: "interpolate", name: "Smooth", icon: "smooth", source: "clip", prompt: "wanted",
    hint: "New frames between those of a clip.", fields: ["factor", "loop", "rigid"],
    examples: [{ request: { factor: 2 }, name: "a cat", files: CAT }],
  },
  {
    id: "upscale", name: "Sharpen", icon: "sharpen", source: "clip", prompt: "none",
    hint: "A clip made larger and sharper.", fields: ["noise_level"],
    examples: [{ request: {}, name: "a cat", files: CAT }],
  },
];

export const serverTask = (task) => task.task ?? task.id;
export const taskOf = (id) => TASKS.find((task) => task.id === id) ?? TASKS[0];

/** Which of the form's tasks a request is of. */
export function taskOfRequest(request) {
  return taskOf(request.task === "generate" && request.sticker ? "sticker" : request.task);
}

export const nameOf = (video) => taskOfRequest({ ...video.request, task: video.task }).name;

/** What a video is called: its prompt, else its task. */
export const titleOf = (video) => video.prompt || nameOf(video);

/** The messengers and chats that stickers are made for, by the server's names. */
export const STICKERS = {
  "telegram": { name: "Telegram", rules: "WebM, 512 pixels, at most 3 seconds and 256 KB" },
  "telegram-emoji": { name: "Telegram emoji", rules: "WebM, 100 × 100, at most 3 seconds and 64 KB" },
  "whatsapp": { name: "WhatsApp", rules: "WebP, 512 × 512, at most 10 seconds and 500 KB" },
  "discord": { name: "Discord", rules: "APNG, 320 × 320, at most 5 seconds and 512 KB" },
  "discord-emoji": { name: "Discord emoji", rules: "WebP, 128 × 128, at most 256 KB" },
  "slack": { name: "Slack", rules: "GIF, 128 × 128, at most 50 frames and 128 KB" },
};
