// Keeps the pages live: new rows slide in, rows change in place when their response lands. The
// pages work without it. Markup comes from the server, which has escaped it.
'use strict';

const ROWS_MAX = 500;
const PAUSE_MS = 200; // between two answers, so that a flood of traffic stays readable
const RETRY_MS = 3000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const pad = (number, width) => String(number).padStart(width, '0');

// Times in the reader's own zone; the title keeps the record's.
function localise(root) {
  for (const time of root.querySelectorAll('time[datetime]:not([data-local])')) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const clock = `${pad(at.getHours(), 2)}:${pad(at.getMinutes(), 2)}:${pad(at.getSeconds(), 2)}`;
    const day = `${at.getFullYear()}-${pad(at.getMonth() + 1, 2)}-${pad(at.getDate(), 2)} `;
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = `${today ? '' : day}${clock}.${pad(at.getMilliseconds(), 3)}`;
    time.dataset.local = '';
  }
}

function showLive(on) {
  const live = document.getElementById('live');
  live.hidden = false;
  live.classList.toggle('off', !on);
  live.lastElementChild.textContent = on ? 'live' : 'gate not reachable';
}

async function fetchJson(path) {
  const response = await fetch(path, { cache: 'no-store' });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

// Calls `take` with every change after `after`, until it returns true.
async function follow(after, run, take) {
  let reached = true; // the page itself came just now
  for (;;) {
    try {
      if (!reached) await fetchJson('/api/runs'); // answers at once, unlike the wait below
      reached = true;
      showLive(true);
      const answer = await fetchJson(`/api/exchanges?after=${after}&run=${run}`);
      if (answer.seq < after) {
        location.reload(); // another store behind the same address
        return;
      }
      const changed = answer.seq > after;
      after = answer.seq;
      if (changed && (await take(answer.rows))) return;
      await sleep(PAUSE_MS);
    } catch {
      reached = false;
      showLive(false);
      await sleep(RETRY_MS);
    }
  }
}

function element(html, parent) {
  const template = document.createElement('template');
  template.innerHTML = html;
  localise(template.content);
  return template.content.querySelector(parent);
}

function putRow(body, row) {
  const fresh = element(row.html, 'tr');
  const old = document.getElementById(fresh.id);
  if (old) {
    const focused = old.contains(document.activeElement) && document.activeElement.parentElement.className;
    fresh.classList.add('changed');
    old.replaceWith(fresh);
    if (focused) fresh.querySelector(`.${focused} a`)?.focus({ preventScroll: true });
    return;
  }
  fresh.classList.add('fresh');
  // Ids sort by time. A row older than all that is shown belongs to a further page.
  const next = [...body.rows].find((shown) => shown.id < fresh.id);
  if (next) next.before(fresh);
  else if (!document.getElementById('older')) body.append(fresh);
}

function trim(body) {
  if (body.rows.length <= ROWS_MAX) return;
  while (body.rows.length > ROWS_MAX) body.rows[body.rows.length - 1].remove();
  const last = body.rows[body.rows.length - 1].id.slice('x-'.length);
  let older = document.getElementById('older');
  if (!older) {
    const pager = document.createElement('p');
    pager.className = 'pager';
    older = pager.appendChild(document.createElement('a'));
    older.id = 'older';
    older.textContent = 'Older exchanges';
    document.querySelector('main').append(pager);
  }
  const run = document.getElementById('exchanges').dataset.run;
  older.href = `/?before=${last}${run ? `&run=${run}` : ''}`;
}

async function refreshRuns(selected) {
  const strip = document.getElementById('runs');
  const focused = strip.contains(document.activeElement) && document.activeElement.dataset.run;
  const cards = (await fetchJson('/api/runs')).map((run) => element(run.html, 'a'));
  for (const card of cards) card.setAttribute('aria-current', String(card.dataset.run === selected));
  strip.replaceChildren(...cards);
  if (focused) cards.find((card) => card.dataset.run === focused)?.focus({ preventScroll: true });
}

function followTable(table) {
  const body = table.tBodies[0];
  const run = table.dataset.run;
  follow(Number(table.dataset.after), run, async (rows) => {
    for (const row of rows) putRow(body, row);
    if (body.rows.length > 0) {
      table.classList.remove('none');
      document.getElementById('empty')?.remove();
    }
    trim(body);
    await refreshRuns(run);
    return false;
  });
}

function followResponse(pane) {
  follow(Number(pane.dataset.after), pane.dataset.run, async (rows) => {
    const row = rows.find((row) => row.id === pane.dataset.id);
    if (!row) return false;
    if (row.messages_sent !== null) document.getElementById('newer').hidden = false;
    if (row.outcome) location.reload();
    return Boolean(row.outcome);
  });
}

localise(document);
const table = document.getElementById('exchanges');
if (table && table.dataset.after) followTable(table);
const waiting = document.getElementById('waiting');
if (waiting) followResponse(waiting);
