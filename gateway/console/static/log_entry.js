/* The page of one entry: checks its proof when it is opened, step by step, and again with the key that the reader puts
   in. Every word is the page's own, in the reader's language. */

import { ProofError, STEPS, checkProof, parseProof } from "./proof.js";

const proof = document.getElementById("proof");
const verdict = document.getElementById("verdict");
const field = document.getElementById("vkey");
const canonical = document.getElementById("canonical").textContent;

function word(name) {
  return document.querySelector(`#words [data-word="${name}"]`)?.textContent ?? name;
}

function mark(step, state, fact = "") {
  const line = document.querySelector(`#steps [data-step="${step}"]`);
  line.dataset.state = state;
  line.querySelector("code").textContent = fact;
  let told = line.querySelector(".unseen");
  if (!told) line.append((told = Object.assign(document.createElement("span"), { className: "unseen" })));
  told.textContent = state === "waiting" ? "" : ` (${word(state)})`;
}

function conclude(state, text) {
  verdict.dataset.state = state;
  verdict.textContent = text;
}

async function fetched() {
  const answer = await fetch(proof.dataset.proof, { credentials: "same-origin", cache: "no-store" });
  if (!answer.ok) throw new ProofError("entry", "no-answer");
  return answer.text();
}

/** What is shown must be what is proven: the page's bytes are compared with the proof's. */
function insistOnBytes(text) {
  const proven = new TextDecoder().decode(parseProof(text).entry);
  if (proven !== canonical) throw new ProofError("entry", "other-bytes");
}

async function check() {
  for (const step of STEPS) mark(step, "waiting");
  conclude("running", word("running"));
  try {
    const text = await fetched();
    await checkProof(text, field.value, Number(proof.dataset.seq), (step, fact) => {
      if (step === "entry") insistOnBytes(text);
      mark(step, "held", fact);
    });
    conclude("proven", word("proven"));
  } catch (error) {
    const known = error instanceof ProofError ? error : new ProofError("entry", "no-answer");
    const at = STEPS.indexOf(known.step);
    STEPS.slice(at + 1).forEach((step) => mark(step, "unasked"));
    mark(known.step, "failed");
    conclude("refused", `${word("refused")} ${word(known.fact)}`);
  }
}

document.getElementById("check").addEventListener("submit", (event) => {
  event.preventDefault();
  check();
});
check();
