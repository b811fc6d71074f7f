// SPDX-License-Identifier: Apache-2.0
/* Keeps the tab "Live Migration" of an instance up to date. All texts come from the server, translated. */
(function () {
  'use strict';

  var IDLE_FACTOR = 5;  // without a migration: ask that much less often

  function set(panel, name, text) {
    var element = panel.querySelector('[data-pcmig="' + name + '"]');
    // Only what changes: a live region is read aloud whenever it is written.
    if (element && element.textContent !== text) {
      element.textContent = text;
    }
  }

  function show(panel, answer) {
    var bar = panel.querySelector('[role="progressbar"]');
    Object.keys(answer.values).forEach(function (key) {
      set(panel, key, answer.values[key]);
      panel.querySelector('[data-pcmig="' + key + '"]').parentNode.hidden = !answer.values[key];
    });
    set(panel, 'headline', answer.headline);
    set(panel, 'spoken', answer.spoken);
    set(panel, 'note', answer.note || panel.pcmigRefused || '');
    panel.querySelector('[data-pcmig="bar"]').hidden = answer.percent === null;
    if (answer.percent !== null) {
      bar.setAttribute('aria-valuenow', answer.percent);
      bar.style.width = answer.percent + '%';
      bar.textContent = answer.percent + ' %';
    }
    panel.querySelector('[data-pcmig="turn-back"]').hidden = !answer.turn_back;
    panel.setAttribute('data-running', answer.running);
  }

  function cookie(name) {
    var found = document.cookie.match('(?:^|; )' + name + '=([^;]*)');
    return found ? decodeURIComponent(found[1]) : '';
  }

  /* The button: asked for once more, then the API judges, and its reason is the note. */
  function turnBack(panel) {
    var part = panel.querySelector('[data-pcmig="turn-back"]');
    var button = part.querySelector('button');
    button.addEventListener('click', function () {
      if (!window.confirm(button.getAttribute('data-confirm'))) {
        return;
      }
      var words = {};
      part.querySelectorAll('input').forEach(function (box) {
        words[box.name] = box.checked;
      });
      button.disabled = true;
      window.fetch(panel.getAttribute('data-url'), {
        method: 'POST',
        credentials: 'same-origin',
        headers: {
          'Content-Type': 'application/json',
          'X-CSRFToken': cookie('csrftoken'),
          'X-Requested-With': 'XMLHttpRequest'
        },
        body: JSON.stringify(words)
      }).then(function (response) {
        return response.ok ? '' : response.text();
      }).catch(function () {
        return panel.getAttribute('data-lost');
      }).then(function (why) {
        button.disabled = false;
        panel.pcmigRefused = why.replace(/^"|"$/g, '');
        set(panel, 'note', panel.pcmigRefused);
      });
    });
  }

  function seen(panel) {
    return !document.hidden && panel.offsetParent !== null;
  }

  function watch(panel) {
    var interval_ms = Number(panel.getAttribute('data-interval-ms'));

    function again() {
      var running = panel.getAttribute('data-running') === 'true';
      window.setTimeout(look, running ? interval_ms : interval_ms * IDLE_FACTOR);
    }

    function look() {
      if (!document.contains(panel)) {
        return;
      }
      if (!seen(panel)) {
        window.setTimeout(look, interval_ms);
        return;
      }
      window.fetch(panel.getAttribute('data-url'), {
        credentials: 'same-origin',
        headers: {'X-Requested-With': 'XMLHttpRequest'}
      }).then(function (response) {
        if (response.status === 401) {
          set(panel, 'note', panel.getAttribute('data-expired'));
          return;
        }
        if (!response.ok) {
          throw new Error(response.status);
        }
        return response.json().then(function (answer) {
          show(panel, answer);
          again();
        });
      }).catch(function () {
        set(panel, 'note', panel.getAttribute('data-lost'));
        again();
      });
    }

    again();
  }

  function start(root) {
    Array.prototype.forEach.call(root.querySelectorAll('.pcmig-migration'), function (panel) {
      if (!panel.pcmigWatched) {
        panel.pcmigWatched = true;
        turnBack(panel);
        watch(panel);
      }
    });
  }

  // The tab may be in the page from the start, or be loaded into it when it is chosen.
  horizon.addInitFunction(function () {
    start(document);
  });
  horizon.tabs.addTabLoadFunction(function ($tab) {
    start($tab[0]);
  });
}());
