// Whoever comes back to the first page finds the way to their own session.
"use strict";

try {
  const session = localStorage.getItem("lumiere-study-session");
  if (session && /^\/s\/[\w-]+$/.test(session)) {
    const again = document.getElementById("again");
    again.querySelector("a").href = session;
    again.hidden = false;
  }
} catch {
  // No storage, as in some private windows: then there is nothing to find.
}
