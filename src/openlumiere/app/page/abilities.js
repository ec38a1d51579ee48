/** What a model can do, as GET /v1/videos/models tells it. */

/** Whether a model has something beyond tasks and styles: "transparent", "path", or a second stage to "sharpen". */
export const offers = (model, what) => (what === "sharpen" ? model.scale > 1 : Boolean(model[what]));

/** Whether an example shows what a model of a small vocabulary was never taught. */
export const isForeign = (model, { subject }) =>
  Boolean(subject && model.subjects?.length && !model.subjects.includes(subject));
