# Bare "make" lists what can be done here.

GO        ?= go
FUZZTIME  ?= 10s
BENCHARGS ?= --repeat 3 --duration 4s
SCENARIO  ?= F1
LAB       ?= ../shared/lab/k8s
IMAGE     ?= rayflux:$(VERSION)
RUNS      ?= 10000
PEERS      = .cache/peers
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Named in full, and run rather than required: a linter's dependencies are not ours.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The end-to-end tests that know a server by its address alone.
ENDTOEND = $(shell grep -ho '^func Test[A-Za-z0-9]*' $(filter-out e2e_cluster_test.go e2e_faults_test.go e2e_handoff_test.go e2e_store_test.go e2e_store_trouble_test.go e2e_store_long_test.go e2e_top_test.go,$(wildcard e2e_*_test.go)) | sed 's/^func \(.*\)/^\1$$/' | paste -sd'|')

GOFILES = $(shell find . -name '*.go' -not -path './.*' -not -path '*/node_modules/*')

.DEFAULT_GOAL := help
.PHONY: help build run test balanced faults simulate bugs race debug fuzz stores store-long conformance interop lint fmt vet bench bench-peers bench-rolling bench-guard profile locust k6 image manifests k8s-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build ./rayflux
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o rayflux .

run: build ## start RayFlux on loopback, for real use
	./rayflux dev

test: ## pass the tests
	$(GO) test ./...

balanced: ## pass the end-to-end tests once more, with a balancer and two nodes in the place of every node
	RAYFLUX_E2E_BALANCER=1 $(GO) test -count=1 -run '$(ENDTOEND)' .

faults: ## kill, hang, cut off, move and delay the processes of a cluster in use for DURATION (5m), a fault of each kind a minute (needs root)
	RAYFLUX_FAULTS=$(or $(DURATION),5m) $(GO) test -count=1 -timeout 0 -run '^TestClusterUnderFaults$$' -v .

simulate: ## simulate RUNS (10000) schedules of a balancer with its nodes
	mkdir -p .cache
	$(GO) test -c -o .cache/simulation ./engine
	seq 0 1 | xargs -P 2 -I{} sh -c 'RAYFLUX_CLUSTER_RUNS=$$(($(RUNS)/2)) RAYFLUX_CLUSTER_FIRST=$$((1000+{}*$(RUNS)/2)) \
	  .cache/simulation -test.timeout 20m -test.run "^TestClusterSimulation$$" -test.v'

bugs: ## show that the simulation finds each bug of engine/bugs, and after how many schedules (BUGARGS="-only NAME" shows one)
	$(GO) run ./engine/bugs $(BUGARGS)

race: ## pass the tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race $(RACEARGS) ./...

debug: ## pass the tests with the checks that are too dear for production
	$(GO) test -tags rayfluxdebug ./engine/...

# A run that is busy when its time is over says "context deadline exceeded", and fails. What a fuzzer has really found is kept in testdata,
# and fails the second run as well, which begins with that.
fuzz: ## fuzz every target for FUZZTIME (10s) each
	@set -e; for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || \
	    $(GO) test -run "^$$target\$$" -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

stores: ## pass the tests of stores with MinIO, too (minutes to build, then 280 MB)
	RAYFLUX_STORES=1 $(GO) test -count=1 -timeout 30m ./persist/...

store-long: ## kill nodes 200 times, take their store away for minutes, and measure what reading and keeping costs (8 minutes)
	RAYFLUX_STORE_LONG=1 $(GO) test -count=1 -timeout 30m -v -run '^(TestNothingStoredIsLostByKills|TestABucketThatIsAwayForTwoMinutes|TestOfflineDelivery|TestReplayRate|TestCostOfAMillionMessages)$$' .

conformance: ## hold the framing against RFC 6455 with the Autobahn suite (needs python3)
	$(GO) run ./protocol/conformance

interop: build ## run every code block of the README (needs python3, npm and Chromium)
	RAYFLUX_INTEROP=1 $(GO) test -count=1 -run '^TestReadme$$' -v .

lint: fmt vet ## check format, vet, staticcheck
	$(GO) run $(STATICCHECK) ./...

fmt: ## fail on files that gofmt would change
	@unformatted=$$(gofmt -l $(GOFILES)); test -z "$$unformatted" || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }

vet: ## run go vet
	$(GO) vet ./...

bench: build ## measure F1 to F8 beside the kernel's floor (BENCHARGS passes flags)
	mkdir -p .cache/bench
	./rayflux bench all --floor $(BENCHARGS)

bench-peers: ## the same on NATS and a gws broadcast server, alternating (PEERARGS passes flags and scenarios)
	mkdir -p $(PEERS)
	$(GO) build -trimpath -o $(PEERS)/rayflux .
	GOBIN=$(abspath $(PEERS)) $(GO) install github.com/nats-io/nats-server/v2@v2.15.2
	cd bench/peers/gws && $(GO) build -trimpath -o $(abspath $(PEERS))/gws .
	$(GO) run ./bench/peers -bin $(PEERS) $(PEERARGS)

bench-rolling: build ## restart three balancers under 5000 clients, add one, and draw when clients come back (ROLLINGARGS passes flags)
	$(GO) run ./bench/rolling -program ./rayflux -chart bench/results/rolling.svg $(ROLLINGARGS)
	$(GO) run ./bench/rolling -program ./rayflux -age 1m -balancers 2 -chart bench/results/spread.svg $(ROLLINGARGS)

bench-guard: ## fail if the working tree is slower than BASE (a commit), by more than this machine's noise
	$(GO) run ./bench/guard -base $(BASE) $(GUARDARGS)

profile: build ## CPU, heap, mutex and block profiles and flame graphs of SCENARIO (F1) into profiles/
	$(GO) run ./bench/profile -program ./rayflux -dir profiles $(SCENARIO)

locust: ## 200 classic users for a minute, by Locust (needs python3; DURATION, USERS, RATE)
	bench/locust/run.sh

k6: ## the same shape by k6, over WebSocket and over HTTP (DURATION, USERS, RATE)
	bench/k6/run.sh

image: ## build the container image IMAGE (rayflux:VERSION) with docker, podman or buildah; ARCHIVE saves it to a file
	GO='$(GO)' VERSION='$(VERSION)' deployments/image.sh '$(IMAGE)' $(ARCHIVE)

manifests: ## hold the Helm chart against the kustomizations, and dashboard and alerts against Prometheus if it is there
	RAYFLUX_MANIFESTS=1 $(GO) test -count=1 ./deployments

k8s-test: ## deploy, load, scale, restart and break RayFlux on the Kubernetes at LAB (RUN chooses tests)
	@test -x '$(LAB)/up.sh' || { echo "no lab at LAB=$(LAB): k8s-test is left out"; exit 0; }; \
	  GO='$(GO)' deployments/test/run.sh '$(LAB)' '$(or $(RUN),.)'

clean: ## remove what was built, and the conformance suite
	rm -rf rayflux dist .cache
