package deployments

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Named in full, and run rather than required: their dependencies are not ours.
const (
	kustomize = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
	helm      = "helm.sh/helm/v3/cmd/helm@v3.19.0"
)

// run runs a tool from its source, which Go keeps when it has built it once.
func run(t *testing.T, tool string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", append([]string{"run", tool}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", tool, strings.Join(args, " "), err, said.Bytes())
	}
	return out
}

// objects are all objects of a stream, by kind and name.
func objects(t *testing.T, text []byte) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o map[string]any
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if o == nil {
			continue // an empty document
		}
		metadata, _ := o["metadata"].(map[string]any)
		name := fmt.Sprint(o["kind"], " ", metadata["name"])
		if all[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		all[name] = o
	}
}

// differences lists where two values are not the same.
func differences(path string, a, b any) (found []string) {
	if x, ok := a.(map[string]any); ok {
		if y, ok := b.(map[string]any); ok {
			keys := map[string]bool{}
			for k := range x {
				keys[k] = true
			}
			for k := range y {
				keys[k] = true
			}
			for k := range keys {
				found = append(found, differences(path+"."+k, x[k], y[k])...)
			}
			slices.Sort(found)
			return found
		}
	}
	if !reflect.DeepEqual(a, b) {
		found = append(found, fmt.Sprintf("%s: kustomize has %v, the chart %v", path, a, b))
	}
	return found
}

// renderings are the ways in which both are used. A kustomization of its own adds the components.
var renderings = []struct {
	name, overlay, namespace string
	components               []string
	values                   []string
}{
	{"minikube", "minikube", "default", nil, []string{"-f", "chart/values-minikube.yaml"}},
	{"production", "production", "rayflux", nil, []string{"-f", "chart/values-production.yaml"}},
	{"with a store", "production", "rayflux", []string{"store"}, []string{"-f", "chart/values-production.yaml", "--set", "store.url=s3://rayflux/snapshots"}},
	{"with monitoring", "production", "rayflux", []string{"monitoring"}, []string{"-f", "chart/values-production.yaml", "--set", "monitoring.enabled=true"}},
	{"with custom metrics", "production", "rayflux", []string{"custom-metrics"}, []string{"-f", "chart/values-production.yaml", "--set", "customMetrics.enabled=true"}},
}

func TestChartRendersWhatKustomizeDoes(t *testing.T) {
	if os.Getenv("RAYFLUX_MANIFESTS") == "" {
		t.Skip(`"make manifests" runs this: it builds kustomize and Helm from source`)
	}
	for _, r := range renderings {
		t.Run(r.name, func(t *testing.T) {
			dir := "overlays/" + r.overlay
			if len(r.components) > 0 {
				dir = withComponents(t, dir, r.components)
			}
			ours := objects(t, run(t, kustomize, "build", dir))
			delete(ours, "Namespace "+r.namespace) // "helm install --create-namespace" makes it
			charts := objects(t, run(t, helm, append([]string{"template", "rayflux", "chart", "--namespace", r.namespace, "--kube-version", "1.34.0"}, r.values...)...))
			if len(ours) < 15 {
				t.Errorf("kustomize renders %d objects", len(ours))
			}
			for name, o := range charts {
				if metadata := o["metadata"].(map[string]any); metadata["namespace"] == nil {
					metadata["namespace"] = r.namespace // where helm puts it
				}
				if ours[name] == nil {
					t.Errorf("the chart alone renders %s", name)
				}
			}
			for name, o := range ours {
				if charts[name] == nil {
					t.Errorf("kustomize alone renders %s", name)
					continue
				}
				for _, d := range differences(name, o, charts[name]) {
					t.Error(d)
				}
			}
		})
	}
}

// withComponents is an overlay of an overlay. It lies beside them, since kustomize takes relative paths only.
func withComponents(t *testing.T, overlay string, components []string) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "with-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../" + overlay + "\ncomponents:\n"
	for _, c := range components {
		text += "  - ../components/" + c + "\n"
	}
	// A component's own objects come after the overlay's namespace was set.
	text += "namespace: rayflux\n"
	if err := os.WriteFile(dir+"/kustomization.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
