package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestReadme runs every code block of README.md, as it stands there, against
// one server: each of the clients has to see what all the others publish. It
// installs what the page tells its readers to install, and the driver of a
// browser, so it needs python3, npm, Chromium and a network.
func TestReadme(t *testing.T) {
	if os.Getenv("RAYFLUX_INTEROP") != "1" {
		t.Skip("RAYFLUX_INTEROP is not 1: see make interop")
	}
	talk := newConversation(t)
	for _, b := range codeBlocks(readPage(t, "README.md")) {
		talk.read(b)
	}
	for _, name := range []string{"live", "reader", "publisher", "measurement"} {
		if len(talk.parts[name]) == 0 {
			t.Errorf("README.md has no %s", name)
		}
	}
	talk.hold()
}

// browserDriver shows a page, or runs a script as typed into a browser's
// console, and prints what it says.
const browserDriver = `
import { chromium } from "playwright-core";
import { readFileSync } from "node:fs";

const [, , executablePath, what, where] = process.argv;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
page.on("pageerror", (error) => console.log("page error:", error.message));
page.on("console", (message) => console.log(message.text()));
if (what === "script") {
  await page.addScriptTag({ content: readFileSync(where, "utf8") });
} else {
  await page.goto(where);
  await page.getByText("connected to").waitFor();
  await page.fill("#text", "hello from the page");
  await page.click("button");
  for (let shown = ""; ; await page.waitForTimeout(100)) {
    const log = await page.innerText("#log");
    if (log !== shown) console.log(log);
    shown = log;
  }
}
`

// conversation is a server and everybody who talks through it.
type conversation struct {
	*testing.T
	dir           string // with ./rayflux, and what was installed
	chromium      string
	listen, admin string
	parts         map[string][]part // by the role they play
	hellos        map[string]bool   // what is published, and everybody has to see
	readers       []*listener
	files         int
}

// part is one command of one code block.
type part struct {
	name string
	argv []string
}

// listener is a process that prints what it receives.
type listener struct {
	name string
	mu   sync.Mutex
	said bytes.Buffer
}

func (l *listener) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.Write(b)
}

func (l *listener) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.String()
}

func newConversation(t *testing.T) *conversation {
	c := &conversation{T: t, dir: t.TempDir(), parts: map[string][]part{}, hellos: map[string]bool{"hello from the page": true}}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			c.chromium = path
			break
		}
	}
	if c.chromium == "" {
		t.Fatal("there is no Chromium")
	}
	c.must("go", "build", "-o", c.dir, ".")
	c.must("python3", "-m", "venv", filepath.Join(c.dir, "venv"))
	c.must(filepath.Join(c.dir, "venv/bin/pip"), "install", "--quiet", "--disable-pip-version-check", "websockets")
	c.must("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", c.dir, "ws", "playwright-core")
	c.file("browser.mjs", browserDriver)
	c.startServer()

	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c.add("reader", "client/js/example.html", "node", filepath.Join(c.dir, "browser.mjs"), c.chromium, "page",
		"file://"+here+"/client/js/example.html?server=ws://"+c.listen+"/ws")
	return c
}

// must runs a command in the repository and waits for it.
func (c *conversation) must(name string, args ...string) {
	c.Helper()
	if out, err := exec.CommandContext(c.Context(), name, args...).CombinedOutput(); err != nil {
		c.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// file writes a file into the directory of the conversation.
func (c *conversation) file(name, text string) string {
	c.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
	return path
}

// run starts a process in that directory, which ends with the test.
func (c *conversation) run(out io.Writer, argv ...string) *exec.Cmd {
	c.Helper()
	cmd := exec.CommandContext(c.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, out, out
	for _, line := range os.Environ() {
		if !strings.HasPrefix(line, envPrefix) {
			cmd.Env = append(cmd.Env, line)
		}
	}
	cmd.Env = append(cmd.Env, "RAYFLUX_SERVER=ws://"+c.listen, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // the driver takes its browser along
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	return cmd
}

func (c *conversation) startServer() {
	c.Helper()
	said, out := io.Pipe()
	server := c.run(out, "./rayflux", "dev", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-format=json")
	c.Cleanup(func() { _ = server.Wait() })
	var ready struct{ Listen, Admin string }
	lines := bufio.NewScanner(said)
	for ready.Listen == "" && lines.Scan() { // what it says before is not about where it listens
		_ = json.Unmarshal(lines.Bytes(), &ready)
	}
	go io.Copy(io.Discard, said)
	if ready.Listen == "" {
		c.Fatalf("the server ended with %q (%v)", lines.Text(), lines.Err())
	}
	c.listen, c.admin = ready.Listen, ready.Admin
}

func (c *conversation) add(role, name string, argv ...string) {
	c.parts[role] = append(c.parts[role], part{name, argv})
}

// read finds out who runs a block. One that nobody runs is an error, so that
// the page has none.
func (c *conversation) read(b codeBlock) {
	c.Helper()
	for _, hello := range regexp.MustCompile(`hello from [A-Za-z ]+`).FindAllString(b.text, -1) {
		c.hellos[hello] = true
	}
	text := strings.NewReplacer("127.0.0.1:8083", c.listen, "127.0.0.1:9083", c.admin).Replace(b.text)
	c.files++
	name, file := fmt.Sprintf("README.md:%d", b.line), fmt.Sprintf("block%d", c.files)
	role := "reader"
	if !strings.Contains(text, "earliest") && !strings.Contains(text, "client.Earliest") {
		role = "live"
	}
	switch {
	case b.language == "sh":
		c.readShell(name, text)
	case b.language == "python":
		c.add(role, name, "venv/bin/python", c.file(file+".py", text))
	case b.language == "js" && b.heading == "A browser":
		c.add(role, name, "node", "browser.mjs", c.chromium, "script", c.file(file+".js", text))
	case b.language == "js":
		c.add(role, name, "node", c.file(file+".mjs", text))
	case b.language == "go":
		program := filepath.Join(c.dir, file)
		c.must("go", "build", "-o", program, c.file(file+".go", text)) // what go run does first
		c.add(role, name, program)
	default:
		c.Errorf("%s: nobody runs a block of %q below %q", name, b.language, b.heading)
	}
}

// readShell takes each line as a command of its own, as the page says.
func (c *conversation) readShell(name, text string) {
	c.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		argv := []string{"sh", "-c", "exec " + strings.Replace(line, "curl ", "curl -fsS ", 1)}
		switch {
		case line == "make run" || line == "make build": // newConversation does as much
		case strings.HasPrefix(line, "./rayflux bench "):
			c.add("measurement", name, "sh", "-c", line+" --warm-up 100ms --duration 200ms")
		case strings.HasPrefix(line, "curl -N "):
			c.add("live", name, argv...)
		case strings.HasPrefix(line, "./rayflux sub "):
			c.add("reader", name, argv...)
		case strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "./rayflux "):
			c.add("publisher", name, argv...)
		default:
			c.Errorf("%s: nobody runs %q", name, line)
		}
	}
}

// hold starts those who hear only what comes after them, then those who begin
// with the earliest message, then publishes, and waits until all have heard all.
func (c *conversation) hold() {
	c.listenTo(c.parts["live"])
	c.awaitSubscriptions(len(c.parts["live"]))
	c.listenTo(c.parts["reader"])
	for _, p := range c.parts["publisher"] {
		var out bytes.Buffer
		if err := c.run(&out, p.argv...).Wait(); err != nil {
			c.Errorf("%s: %q: %v\n%s", p.name, p.argv, err, out.Bytes())
		}
	}
	deadline := time.Now().Add(time.Minute)
	for _, l := range c.readers {
		missing := c.unheard(l)
		for ; len(missing) > 0 && time.Now().Before(deadline); missing = c.unheard(l) {
			time.Sleep(50 * time.Millisecond)
		}
		if len(missing) > 0 {
			c.Errorf("%s did not hear %q, but\n%s", l.name, missing, l.text())
		}
		c.Logf("%s heard %d messages of %d", l.name, len(c.hellos)-len(missing), len(c.hellos))
	}
	for _, p := range c.parts["measurement"] {
		cmd := exec.CommandContext(c.Context(), p.argv[0], p.argv[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			c.Errorf("%s: %q: %v\n%s", p.name, p.argv, err, out)
		}
	}
}

func (c *conversation) listenTo(parts []part) {
	for _, p := range parts {
		l := &listener{name: p.name + " (" + filepath.Base(p.argv[0]) + ")"}
		c.readers = append(c.readers, l)
		cmd := c.run(l, p.argv...)
		c.Cleanup(func() { _ = cmd.Wait() })
	}
}

func (c *conversation) unheard(l *listener) (missing []string) {
	text := l.text()
	for hello := range c.hellos {
		if !strings.Contains(text, hello) {
			missing = append(missing, hello)
		}
	}
	slices.Sort(missing)
	return missing
}

// awaitSubscriptions asks the operators' port until there are n.
func (c *conversation) awaitSubscriptions(n int) {
	c.Helper()
	want := fmt.Sprintf("\nrayflux_subscriptions %d\n", n)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get("http://" + c.admin + "/metrics")
		if err != nil {
			c.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if bytes.Contains(text, []byte(want)) {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("there are not %d subscriptions after a minute", n)
		}
	}
}
