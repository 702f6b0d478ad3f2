package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"rayflux/engine"
)

// settingsFile is a YAML file of settings as it was read: texts, not yet values.
// It is a mapping of flag names to scalars, and one list, topics.
type settingsFile struct {
	path   string
	values map[string]fileValue
	topics []topicRule
}

type fileValue struct {
	text string
	line int
}

// topicRule is one entry of the topics list.
type topicRule struct {
	engine.TopicRule
	line int

	retains bool          // it says how long messages are kept,
	age     time.Duration // 0: for good
	bytes   int64         // of one topic; 0: no limit
}

// value looks key up; a nil file has none.
func (f *settingsFile) value(key string) (fileValue, bool) {
	if f == nil {
		return fileValue{}, false
	}
	v, ok := f.values[key]
	return v, ok
}

func (f *settingsFile) at(line int) string { return fmt.Sprintf("file %s:%d", f.path, line) }

// readFile reads the settings file at path. keys are the keys it may have,
// topics aside. Every error names file and line; all are told at once.
func readFile(path string, keys []string) (*settingsFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("settings file: %w", err)
	}
	return parseFile(path, text, keys)
}

func parseFile(path string, text []byte, keys []string) (*settingsFile, error) {
	f := &settingsFile{path: path, values: map[string]fileValue{}}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return f, nil // empty, or comments only
	case err != nil:
		return nil, fmt.Errorf("file %s: %w", path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("file %s: more than one document, want one", path)
	}
	err := f.eachKey(document.Content[0], append(slices.Clone(keys), "topics"), func(key string, v *yaml.Node) error {
		if key == "topics" {
			return f.parseTopics(v)
		}
		text, err := f.scalar(key, v)
		if err == nil {
			f.values[key] = fileValue{text, v.Line}
		}
		return err
	})
	return f, err
}

// eachKey hands over the entries of a mapping and complains about keys that
// are unknown or there twice.
func (f *settingsFile) eachKey(mapping *yaml.Node, known []string, each func(key string, v *yaml.Node) error) error {
	if mapping.Kind != yaml.MappingNode {
		return fmt.Errorf("%s: want a mapping of settings", f.at(mapping.Line))
	}
	var errs []error
	seen := map[string]bool{}
	for i := 0; i < len(mapping.Content); i += 2 {
		k, v := mapping.Content[i], mapping.Content[i+1]
		switch {
		case !slices.Contains(known, k.Value):
			errs = append(errs, fmt.Errorf("%s: unknown key %q%s", f.at(k.Line), k.Value, didYouMean("", k.Value, known)))
		case seen[k.Value]:
			errs = append(errs, fmt.Errorf("%s: key %q is there twice", f.at(k.Line), k.Value))
		default:
			errs = append(errs, each(k.Value, v))
		}
		seen[k.Value] = true
	}
	return errors.Join(errs...)
}

func (f *settingsFile) scalar(key string, v *yaml.Node) (string, error) {
	if v.Kind != yaml.ScalarNode || v.Value == "" || v.ShortTag() == "!!null" {
		return "", fmt.Errorf("%s: %s: want one value", f.at(v.Line), key)
	}
	return v.Value, nil
}

func (f *settingsFile) parseTopics(list *yaml.Node) error {
	if list.Kind != yaml.SequenceNode {
		return fmt.Errorf("%s: topics: want a list of rules", f.at(list.Line))
	}
	var errs []error
	for _, entry := range list.Content {
		rule := topicRule{line: entry.Line}
		err := f.eachKey(entry, []string{"pattern", "slow", "bytes", "age", "persist", "retain-age", "retain-bytes"}, func(key string, v *yaml.Node) error {
			text, err := f.scalar(key, v)
			if err != nil {
				return err
			}
			if err := rule.set(key, text); err != nil {
				return fmt.Errorf("%s: %s: %w", f.at(v.Line), key, err)
			}
			return nil
		})
		if err == nil && rule.Pattern == "" {
			err = fmt.Errorf("%s: topics: a rule needs a pattern", f.at(entry.Line))
		}
		errs = append(errs, err)
		f.topics = append(f.topics, rule)
	}
	return errors.Join(errs...)
}

func (r *topicRule) set(key, text string) (err error) {
	switch key {
	case "pattern":
		r.Pattern = text
	case "slow":
		r.Slow = new(engine.SlowPolicy)
		*r.Slow, err = engine.ParseSlowPolicy(text)
	case "bytes":
		if r.Bytes, err = parseSize[int](text); err == nil && r.Bytes == 0 {
			err = errors.New("0 bytes hold no message")
		}
	case "age":
		if r.Age, err = parseDuration(text); err == nil && r.Age < time.Second {
			err = fmt.Errorf("%v is less than a second", r.Age)
		}
	case "persist":
		r.Persist = new(bool)
		if *r.Persist, err = strconv.ParseBool(text); err != nil {
			err = fmt.Errorf("%q is neither true nor false", text)
		}
	case "retain-age":
		r.retains = true
		r.age, err = parseDuration(text)
	case "retain-bytes":
		r.retains = true
		r.bytes, err = parseSize[int64](text)
	}
	return err
}
