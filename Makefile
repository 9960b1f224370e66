# Each target prints what it does; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
KAFKA_VERSION := 4.1.0
HIVEMQ_VERSION := 2025.5
MOCHI_VERSION := 2.7.9
KUSTOMIZE_VERSION := 5.7.1
KUBERNETES_VERSION := 1.36.3
HELM_VERSION := 3.19.5
COMPOSE_GO_VERSION := 2.16.2
GRAFANA_SDK_VERSION := 0.0.22
TELEGRAF_VERSION := 1.37.2
MQ_BRIDGE_VERSION := 1.2.0
BROKERS := kafka-$(KAFKA_VERSION) hivemq-$(HIVEMQ_VERSION) mochi-$(MOCHI_VERSION)
SECONDS ?=
MINUTES ?= 30
SEED ?=
BROKER ?= mosquitto
SUITE ?= bookworm
ROUNDS ?=
TARGET ?=
INPUT ?=
ONLY ?=

.DEFAULT_GOAL := help
.PHONY: help setup brokers run unit test fresh image-test k8s-test chart-test systemd-test nemesis fuzz controls figures bench compare peers path profile check lint types bandit audit sbom release lock lock-debian pictures clean

help:  ## show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.complete .venv/bin/connector  ## make .venv with everything in it (again in a second when nothing changed)

.venv/.complete: requirements/dev.txt pyproject.toml
	@echo "installing into .venv; that takes a minute or two, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
		--requirement requirements/dev.txt
	@touch $@

# The command as the image has it; each source tree that has this .venv under its own name runs its own sources.
.venv/bin/connector: image/connector.py | .venv/.complete
	@sed '1s|.*|#!$(realpath .venv)/bin/python|' $< > $@ && chmod 755 $@

run: setup  ## see messages cross between two brokers; SECONDS=20 ends by itself and checks the result
	@$(BIN)/python -m tools.demo $(if $(SECONDS),--seconds $(SECONDS))

brokers: $(BROKERS:%=.tools/%/.complete) .tools/kafka-$(KAFKA_VERSION)/kafka.jsa .tools/kustomize-$(KUSTOMIZE_VERSION)/.complete  ## install what the tests need: mosquitto, HiveMQ, Apache Kafka, a browser, ...
	@tests/support/installers/install-mosquitto.sh
	@tests/support/installers/install-tools.sh
	@tests/support/installers/install-prometheus.sh
	@tests/support/installers/install-chromium.sh

.tools/kafka-$(KAFKA_VERSION)/.complete: tests/support/installers/kafka/pom.xml tests/support/installers/kafka/jars.sha256
	tests/support/installers/install-kafka.sh $(KAFKA_VERSION)

.tools/kafka-$(KAFKA_VERSION)/kafka.jsa: tests/support/installers/archive_kafka.py | .tools/kafka-$(KAFKA_VERSION)/.complete setup
	$(BIN)/python -m tests.support.installers.archive_kafka $@

.tools/hivemq-$(HIVEMQ_VERSION)/.complete: tests/support/installers/hivemq/pom.xml tests/support/installers/hivemq/jars.sha256 tests/support/installers/hivemq/Broker.java
	tests/support/installers/install-hivemq.sh $(HIVEMQ_VERSION)

.tools/mochi-$(MOCHI_VERSION)/.complete: tests/support/installers/mochi/main.go tests/support/installers/mochi/go.mod tests/support/installers/mochi/go.sum
	tests/support/installers/install-mochi.sh $(MOCHI_VERSION)

.tools/kustomize-$(KUSTOMIZE_VERSION)/.complete: tests/support/installers/kustomize/go.mod tests/support/installers/kustomize/go.sum
	tests/support/installers/install-kustomize.sh $(KUSTOMIZE_VERSION)

.tools/kubernetes-$(KUBERNETES_VERSION)/.complete: tests/support/installers/kubernetes/go.mod tests/support/installers/kubernetes/go.sum
	tests/support/installers/install-kubernetes.sh $(KUBERNETES_VERSION)

.tools/helm-$(HELM_VERSION)/.complete: tests/support/installers/helm/go.mod tests/support/installers/helm/go.sum
	tests/support/installers/install-go-tool.sh helm $(HELM_VERSION) helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm helm

.tools/compose-go-$(COMPOSE_GO_VERSION)/.complete: tests/support/installers/compose-go/go.mod tests/support/installers/compose-go/go.sum tests/support/installers/compose-go/main.go
	tests/support/installers/install-go-tool.sh compose-go $(COMPOSE_GO_VERSION) github.com/compose-spec/compose-go/v2 . compose-spec

.tools/grafana-$(GRAFANA_SDK_VERSION)/.complete: tests/support/installers/grafana/go.mod tests/support/installers/grafana/go.sum tests/support/installers/grafana/main.go
	tests/support/installers/install-go-tool.sh grafana $(GRAFANA_SDK_VERSION) github.com/grafana/grafana-foundation-sdk/go . check-dashboard

unit: setup  ## run the tests that start no server, in 50 seconds; ARGS="tests/unit -k name" runs some
	$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist worksteal tests/unit)

test: setup brokers  ## install the brokers and run every test, two at a time; ARGS="-k name" runs some
	$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist worksteal)

fresh:  ## make an empty Debian, and do in it what the README says: make run SECONDS=20, make test; as root
	@FRESH_ARGS='$(ARGS)' tests/product/fresh.sh

image-test: setup brokers  ## build the image on a Debian base made here, and run it between real brokers; minutes, as root
	tests/product/build-image.sh build/image
	CONNECTOR_IMAGE=build/image $(BIN)/python -m pytest tests/product/image_checks.py

k8s-test: setup .tools/kustomize-$(KUSTOMIZE_VERSION)/.complete .tools/kubernetes-$(KUBERNETES_VERSION)/.complete .tools/helm-$(HELM_VERSION)/.complete  ## apply k8s/ to a real API server, which is built first: half an hour, once; then 5 minutes
	$(BIN)/python -m pytest $(or $(ARGS),tests/product/kubernetes_checks.py tests/product/chart_checks.py)

chart-test: setup brokers .tools/helm-$(HELM_VERSION)/.complete .tools/compose-go-$(COMPOSE_GO_VERSION)/.complete .tools/grafana-$(GRAFANA_SDK_VERSION)/.complete  ## build helm and others once, minutes, and hold chart, compose.yaml and dashboard against them
	$(BIN)/python -m pytest tests/product/test_chart.py tests/product/test_compose.py tests/product/test_dashboard.py

systemd-test: setup brokers  ## install the bundle in an empty Debian with systemd and no network, and try docs/deploy.md; as root; SUITE=trixie
	tests/product/build-service.sh build/service-$(SUITE) $(SUITE)
	CONNECTOR_SERVICE=build/service-$(SUITE) unshare --net sh -c 'ip link set lo up && exec "$$@"' sh \
		$(BIN)/python -m pytest tests/product/service_checks.py

nemesis: setup brokers  ## faults by chance for MINUTES=30, then one verdict; SEED= makes the same plan again; BROKER=hivemq
	$(BIN)/python -m tests.support.nemesis --broker $(BROKER) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

fuzz: setup  ## make inputs of every kind for SECONDS=60 each; TARGET=packets alone; SEED= again; INPUT=file tries one
	@$(BIN)/python -m tests.model.fuzz $(TARGET) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(INPUT),--input $(INPUT))

controls: setup brokers  ## put faults into copies of the bridge, and see the tests turn red
	$(BIN)/python -m tests.support.controls

figures: setup brokers  ## run every test, and write what came of it into docs/reliability.md
	rm -f figures.jsonl
	CONNECTOR_FIGURES=$(CURDIR)/figures.jsonl $(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal
	$(BIN)/python -m tests.support.figures figures.jsonl

bench: setup brokers peers .venv/.bench  ## measure beside other programs, into docs/performance.md; ROUNDS=1 ONLY=latency
	$(BIN)/python -m bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

compare: setup brokers  ## processor time per message beside that of another commit, in ten alternating pairs: BASE=HEAD~1
	$(BIN)/python -m bench.compare $(or $(BASE),HEAD~1)

peers:  ## install what `make bench` compares with: Telegraf, mq-bridge, kcat and mosquitto_sub
	@PYTHON=$(PYTHON) bench/install-peers.sh $(TELEGRAF_VERSION) $(MQ_BRIDGE_VERSION)

.venv/.bench: .venv/.complete requirements/bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
		--requirement requirements/bench.txt
	@touch $@

path: setup  ## follow one message through the code, with real brokers: its files and functions, in order
	@$(BIN)/python -m tools.path

profile: setup brokers  ## measure where the worker's processor time goes, into docs/performance.md
	$(BIN)/python -m bench.profile

pictures: setup brokers  ## take the pictures of the status page in the documents anew
	$(BIN)/python -m tests.product.pictures

check: lint types bandit  ## lint, types, known bad habits, and the documents against the code
	$(BIN)/python -m pytest -q tests/product/test_documents.py tests/product/test_structure.py tests/product/test_programs.py \
		tests/product/test_layout.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bandit: setup
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml app agents tables clients tools bench image

audit: setup  ## known vulnerabilities of the locked dependencies; fails if the service did not answer
	$(BIN)/python -m tools.dependencies audit

sbom: setup  ## write sbom.json: the locked dependencies with their licences, in CycloneDX
	$(BIN)/python -m tools.dependencies sbom > sbom.json

release: setup  ## build wheel, sources, image, sbom.json and SHA256SUMS from the last commit, twice, into dist/
	@$(BIN)/python -m tools.release $(ARGS)

lock-debian: setup  ## write image/debian.lock: the Debian packages of today's image, to be looked at; minutes, as root
	@$(BIN)/python -m tools.release --lock-debian

lock: setup  ## resolve the dependencies again and write the hash-pinned lock files
	$(BIN)/uv pip compile --quiet pyproject.toml --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.10 --universal --output-file requirements/runtime.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.10 --universal --output-file requirements/dev.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --extra bench --constraint requirements/dev.txt --generate-hashes \
		--no-emit-index-url --no-header --python-version 3.10 --universal --output-file requirements/bench.txt
	echo mq-bridge==$(MQ_BRIDGE_VERSION) | $(BIN)/uv pip compile --quiet - --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.10 --universal --output-file requirements/mq-bridge.txt

clean:  ## remove what setup and the tests made
	rm -rf build dist .venv .tools .pytest_cache .mypy_cache .ruff_cache sbom.json figures.jsonl bench-results.jsonl
