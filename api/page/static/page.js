// Keeps the page live: the server says that something changed, and the content is fetched anew. Without this
// module the page is whole, as it was when it was loaded.

const content = document.getElementById("content");
const live = document.getElementById("live");
const LOOK_MILLISECONDS = 15000;
let fetching = false;
let wanted = false;
let shown = written(content);

function show(text, tone) {
  live.hidden = false;
  live.textContent = text;
  live.className = tone;
}

function written(element) {
  return [...element.children].map((section) => section.outerHTML);
}

// Only sections that differ, so that what someone selected or is reading elsewhere stays.
function replace(sections) {
  const next = sections.map((section) => section.outerHTML);
  if (next.length === shown.length) {
    const old = [...content.children];
    sections.forEach((section, at) => next[at] === shown[at] || old[at].replaceWith(section));
  } else {
    content.replaceChildren(...sections);
  }
  shown = next;
}

async function refresh() {
  wanted = true;
  if (fetching) return; // one at a time; what comes meanwhile is in the next
  fetching = true;
  try {
    while (wanted) {
      wanted = false;
      const answer = await fetch("/page/content", { cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      // Rendered and escaped by our server, from our own origin; scripts in it would not run.
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      replace([...parsed.body.children]);
      content.dataset.index = answer.headers.get("X-Index");
      document.title = content.firstElementChild.dataset.title;
      tellTimes();
    }
    show("live", "good");
  } catch {
    show("no answer, trying again", "warn");
  } finally {
    fetching = false;
  }
}

const UNITS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];
const words = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });

function tellTimes() {
  for (const element of document.querySelectorAll("time")) {
    const at = new Date(element.dateTime);
    const seconds = (at - Date.now()) / 1000;
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
    element.textContent = words.format(Math.round(seconds / size), unit);
    element.title = at.toISOString();
  }
}

function listen() {
  const source = new EventSource(`/page/stream?index=${content.dataset.index}`);
  source.addEventListener("open", () => show("live", "good"));
  source.addEventListener("message", refresh);
  source.addEventListener("error", () => {
    show("connection lost, trying again", "warn");
    if (source.readyState === EventSource.CLOSED) {
      // Refused for good (a restored store, too many watchers): begin anew, at the newest index.
      setTimeout(async () => {
        await refresh();
        listen();
      }, 5000);
    }
  });
}

tellTimes();
setInterval(tellTimes, 1000);
// When the source was last read changes no index, so no message tells of it.
setInterval(() => document.hidden || refresh(), LOOK_MILLISECONDS);
listen();
