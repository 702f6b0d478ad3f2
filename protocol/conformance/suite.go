package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Pinned: a verdict should change only when our code does. The second list is
// what the first one builds; its library is the one the suite is written for.
var (
	toolPins  = []string{"setuptools==69.5.1", "wheel==0.43.0", "fissix==24.4.24", "six==1.16.0", "txaio==23.1.1", "Twisted==24.11.0"}
	suitePins = []string{"autobahn==0.10.9", "autobahntestsuite==25.10.1"}
)

//go:embed wstest.py
var wstest []byte

const agent = "rayflux" // our name in the suite's reports

// suite is an installed copy of the Autobahn test suite.
type suite struct {
	dir    string // absolute
	python string // the interpreter of the virtual environment in dir
}

func (s suite) script() string   { return filepath.Join(s.dir, "wstest.py") }
func (s suite) original() string { return filepath.Join(s.dir, "original") } // as packaged, Python 2
func (s suite) library() string  { return filepath.Join(s.dir, "library") }  // as translated
func (s suite) reports() string  { return filepath.Join(s.dir, "reports") }

// install puts the suite into dir, unless the same one is there already.
func install(ctx context.Context, dir, python string) (suite, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return suite{}, err
	}
	s := suite{dir: dir, python: filepath.Join(dir, "venv", "bin", "python")}
	version, err := exec.CommandContext(ctx, python, "-VV").CombinedOutput()
	if err != nil {
		return s, fmt.Errorf("%s -VV: %w", python, err)
	}
	// dir belongs to it: the virtual environment knows its own place and breaks when moved.
	stamp := fmt.Sprintf("%x\n", sha256.Sum256(fmt.Append(nil, dir, toolPins, suitePins, string(version), string(wstest))))
	stampFile := filepath.Join(dir, "installed")
	if have, err := os.ReadFile(stampFile); err == nil && string(have) == stamp {
		return s, nil
	}

	fmt.Println("installing the Autobahn test suite ...")
	// One by one: the directory was named on a command line and may hold somebody's files.
	for _, ours := range []string{stampFile, filepath.Join(dir, "venv"), s.original(), s.library()} {
		if err := os.RemoveAll(ours); err != nil {
			return s, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, err
	}
	if err := os.WriteFile(s.script(), wstest, 0o644); err != nil {
		return s, err
	}
	if err := s.build(ctx, python); err != nil {
		return s, err
	}
	return s, os.WriteFile(stampFile, []byte(stamp), 0o644)
}

// build makes the virtual environment and translates the suite in it to Python 3.
func (s suite) build(ctx context.Context, python string) error {
	pip := []string{s.python, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "install"}
	// Their own setup scripts must run with the setuptools above (newer ones dropped what they
	// import), and compiling Python 2 would only print errors.
	asIs := []string{"--no-deps", "--no-build-isolation", "--no-compile", "--target", s.original()}
	for _, step := range [][]string{
		{python, "-m", "venv", filepath.Join(s.dir, "venv")},
		slices.Concat(pip, toolPins),
		slices.Concat(pip, asIs, suitePins),
		{s.python, s.script(), "convert", filepath.Join(s.original(), "autobahntestsuite"), filepath.Join(s.library(), "autobahntestsuite")},
	} {
		if out, err := exec.CommandContext(ctx, step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w\n%s", step, err, out)
		}
	}
	return os.Rename(filepath.Join(s.original(), "autobahn"), filepath.Join(s.library(), "autobahn"))
}

// result is what the suite says of one case.
type result struct {
	Behavior        string `json:"behavior"`
	BehaviorClose   string `json:"behaviorClose"`
	RemoteCloseCode *int   `json:"remoteCloseCode"`
	ReportFile      string `json:"reportfile"`
}

// run plays the cases that match patterns against the server at url.
func (s suite) run(ctx context.Context, url string, patterns []string) (map[string]result, error) {
	if err := os.RemoveAll(s.reports()); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(map[string]any{
		"outdir":  s.reports(),
		"servers": []any{map[string]any{"agent": agent, "url": url}},
		"cases":   patterns,
	})
	if err != nil {
		return nil, err
	}
	specFile := filepath.Join(s.dir, "spec.json")
	if err := os.WriteFile(specFile, spec, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.python, s.script(), "run", specFile)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+s.library())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the suite: %w\n%s", err, tail(out, 4<<10))
	}
	index, err := os.ReadFile(filepath.Join(s.reports(), "index.json"))
	if err != nil {
		return nil, fmt.Errorf("the suite wrote no report: %w\n%s", err, tail(out, 4<<10))
	}
	var agents map[string]map[string]result
	if err := json.Unmarshal(index, &agents); err != nil {
		return nil, fmt.Errorf("the suite's report: %w", err)
	}
	return agents[agent], nil
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	return b
}
