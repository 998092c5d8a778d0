// Keeps parts of a page fresh: each element with `data-live` (seconds) and an id is taken anew from the page's own address,
// or from `data-from` where the page may be the answer to a form. A part that is over loads the page again.
// It stops while nobody looks or somebody works in the part, and says so when the gateway cannot be reached.

const policy = globalThis.trustedTypes?.createPolicy("fl-gateway", { createHTML: (text) => text }) ?? {
  createHTML: (text) => text,
};
const parts = [...document.querySelectorAll("[data-live][id]")];
const address = parts[0]?.dataset.from ?? location.pathname + location.search;
const told = document.getElementById("live-told");
const SLOWEST_S = 60;
let waits_s = Math.min(...parts.map((part) => Number(part.dataset.live)));
const usual_s = waits_s;

async function refresh() {
  const answer = await fetch(address, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (answer.redirected) {
    location.replace(address); // the session is over: the browser is led to the sign-in page and back
    return;
  }
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(policy.createHTML(await answer.text()), "text/html");
  if (parts.some((part) => !page.getElementById(part.id))) location.replace(address);
  else for (const part of parts) put(part, page.getElementById(part.id));
}

function put(part, fresh) {
  if (part.contains(document.activeElement) || part.innerHTML === fresh.innerHTML) return;
  part.replaceChildren(...document.adoptNode(fresh).childNodes);
}

function say(name) {
  if (told && told.dataset.now !== name) {
    told.dataset.now = name;
    told.textContent = told.dataset[name];
  }
}

async function round() {
  if (document.visibilityState === "visible") {
    try {
      await refresh();
      waits_s = usual_s;
      say("fresh");
    } catch {
      waits_s = Math.min(waits_s * 2, SLOWEST_S);
      say("lost");
    }
  }
  setTimeout(round, waits_s * 1000);
}

if (parts.length) setTimeout(round, waits_s * 1000);
