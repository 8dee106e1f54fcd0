"use strict";
// Everything shown is set as text, never as markup: titles and ids come from strangers.
const at = (id) => document.getElementById(id);
const latencies = [];
let last = 0;

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (at("token").value) headers.Authorization = "Bearer " + at("token").value;
  const start = performance.now();
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(path, options);
  const value = await response.json();
  latencies.push(performance.now() - start);
  if (latencies.length > 100) latencies.shift();
  const middle = [...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)];
  at("latency").textContent =
    `last ${latencies.at(-1).toFixed(1)} ms, median of ${latencies.length}: ${middle.toFixed(1)} ms, ` +
    `in the service ${(response.headers.get("server-timing") || "").replace("app;dur=", "")} ms`;
  if (!response.ok) throw new Error([value.detail, ...(value.errors || [])].join("; "));
  return value;
}

function line(entry) {
  const item = document.createElement("li");
  item.textContent = `${entry.title} (${entry.score.toFixed(4)})`;
  const why = document.createElement("small");
  item.append(why);
  at("items").append(item);
  return why;
}

async function explain(user, entry, why) {
  let known;
  try {
    known = await call("explain", { user, item: entry.item });
  } catch {
    if (!/^-?[0-9]{1,15}$/.test(user)) return;
    known = await call("explain", { user: Number(user), item: entry.item });
  }
  const features = Object.entries(known.features).map(([name, share]) => `${name} ${share.toFixed(3)}`);
  const history = known.history.slice(0, 3).map((part) => `${part.title} ${part.total.toFixed(3)}`);
  why.textContent = `because of ${features.join(", ")}${history.length ? "; from " + history.join(", ") : ""}`;
}

async function go() {
  const mine = ++last;
  const user = at("user").value.trim();
  const text = at("text").value.trim();
  at("status").textContent = "";
  at("items").replaceChildren();
  try {
    const found = text
      ? await call("search", { texts: [text], k: 10 })
      : await call("recommend?" + new URLSearchParams({ user, k: 10 }));
    if (mine !== last) return;
    for (const entry of found.answers[0]) {
      const why = line(entry);
      if (text) why.textContent = `nearness of its text to yours: ${entry.score.toFixed(3)}`;
      else await explain(user, entry, why);
    }
  } catch (error) {
    at("status").textContent = error.message;
  }
}

at("go").addEventListener("click", go);
for (const id of ["user", "text"]) {
  at(id).addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
}
// an address may carry the question, for links: /#user=7 or /#text=red+wine
const asked = new URLSearchParams(location.hash.slice(1));
at("user").value = asked.get("user") || "";
at("text").value = asked.get("text") || "";
if (at("user").value || at("text").value) go();
