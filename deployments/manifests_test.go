// Package deployments has no code of its own: these tests hold its files to the program and to each other.
package deployments

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// check complains about names that a page does not have.
func check(t *testing.T, file, name, page string) {
	t.Helper()
	if !strings.Contains(page, "`"+name+"`") {
		t.Errorf("%s names %s, which does not exist", file, name)
	}
}

func TestFilesNameOnlyWhatThereIs(t *testing.T) {
	settings, metrics := string(read(t, "../docs/settings.md")), string(read(t, "../docs/metrics.md"))
	variable, metric := regexp.MustCompile(`\bRAYFLUX_[A-Z_]+[A-Z]`), regexp.MustCompile(`\brayflux_[a-z_]+[a-z]`)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	found := 0
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if ext := filepath.Ext(name); err != nil || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return err
		}
		text := string(read(t, name))
		for _, v := range variable.FindAllString(text, -1) {
			found++
			check(t, name, v, settings)
		}
		for _, m := range metric.FindAllString(text, -1) {
			found++
			if m == "rayflux_messages_published_per_second" { // what an adapter makes of the counter
				continue
			}
			if !strings.Contains(metrics, "`"+m+"`") {
				m = suffix.ReplaceAllString(m, "")
			}
			check(t, name, m, metrics)
		}
		return nil
	})
	if err != nil || found < 50 {
		t.Errorf("%d names were found (%v): the test looks at the wrong place", found, err)
	}
}

// What a pod is given to end has to hold preStop, which balancers have for the proxies before them, --drain-timeout and the two seconds
// that a drain may take longer.
func TestGracePeriodsFitTheDrain(t *testing.T) {
	config := objects(t, read(t, "base/config.yaml"))["ConfigMap flux-config"]["data"].(map[string]any)
	drain, err := time.ParseDuration(config["RAYFLUX_DRAIN_TIMEOUT"].(string))
	if err != nil {
		t.Fatal(err)
	}
	for file, name := range map[string]string{"base/node.yaml": "StatefulSet flux-node", "base/balancer.yaml": "Deployment flux-balancer"} {
		var workload struct {
			Spec struct {
				Template struct {
					Spec struct {
						Grace      int `yaml:"terminationGracePeriodSeconds"`
						Containers []struct {
							Lifecycle struct {
								PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
							}
						}
					}
				}
			}
		}
		text, err := yaml.Marshal(objects(t, read(t, file))[name])
		if err == nil {
			err = yaml.Unmarshal(text, &workload)
		}
		if err != nil || len(workload.Spec.Template.Spec.Containers) != 1 {
			t.Fatal(name, err)
		}
		pod := workload.Spec.Template.Spec
		before := time.Duration(pod.Containers[0].Lifecycle.PreStop.Sleep.Seconds) * time.Second
		stored := time.Duration(0) // a node's last messages have --stored-timeout to be stored, and what was on its way as long again
		if strings.HasPrefix(name, "StatefulSet") {
			stored = 20 * time.Second
		}
		if need := before + drain + 2*time.Second + stored; (before > 0) != strings.HasPrefix(name, "Deployment") || time.Duration(pod.Grace)*time.Second <= need {
			t.Errorf("%s: preStop is %v, the grace period %d s, want more than %v", name, before, pod.Grace, need)
		}
	}
}

func TestAlertsOfComposeAreThoseOfTheOperator(t *testing.T) {
	var plain map[string]any
	if err := yaml.Unmarshal(read(t, "observe/rules.yml"), &plain); err != nil {
		t.Fatal(err)
	}
	operator := objects(t, read(t, "components/monitoring/rules.yaml"))["PrometheusRule rayflux"]["spec"]
	if !reflect.DeepEqual(any(plain), operator) {
		t.Error("observe/rules.yml is not the spec of components/monitoring/rules.yaml")
	}
}

func TestDashboardHasWhatOneLooksFor(t *testing.T) {
	var dashboard struct{ Panels []struct{ Title string } }
	if err := json.Unmarshal(read(t, "observe/dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	titles := ""
	for _, p := range dashboard.Panels {
		titles += p.Title + "\n"
	}
	for _, want := range []string{"Messages published", "Publish to write", "Messages dropped", "Recoveries", "Snapshot backlog", "Connections per pod", "Topics handed over"} {
		if !strings.Contains(titles, want) {
			t.Errorf("no panel is called %s", want)
		}
	}
}
