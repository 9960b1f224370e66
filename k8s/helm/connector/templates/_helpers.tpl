{{/* The name of every object: that of the release, with connector in it. Pods get "-" and a number behind it. */}}
{{- define "connector.name" -}}
{{- $name := contains "connector" .Release.Name | ternary .Release.Name (printf "%s-connector" .Release.Name) -}}
{{- if gt (len $name) 52 -}}
{{- fail (printf "the release %q makes the name %q: Kubernetes takes at most 52 characters there; choose a shorter one" .Release.Name $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* What tells the pods of this release from others, in every selector. It stays the same for ever: no version. */}}
{{- define "connector.labels" -}}
app.kubernetes.io/name: connector
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Name and labels of an object itself, with something behind the name or "": (list . "-settings"). */}}
{{- define "connector.metadata" -}}
{{- $root := first . -}}
name: {{ include "connector.name" $root }}{{ last . }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "connector.labels" $root | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An object of k8s/base or k8s/monitoring under the name of this release: (list . "service.yaml"). */}}
{{- define "connector.object" -}}
{{- $root := first . -}}
{{- $object := printf "files/%s" (last .) | $root.Files.Get | fromYaml -}}
{{- if not $object.kind -}}
{{- fail (printf "files/%s is missing in the chart: its links were lost; package the chart where the sources are" (last .)) -}}
{{- end -}}
{{- $_ := set $object "metadata" (mustMergeOverwrite $object.metadata (include "connector.metadata" (list $root "") | fromYaml)) -}}
{{- toYaml $object -}}
{{- end -}}

{{/* The names of all secrets among the settings, which therefore are no values. */}}
{{- define "connector.secretNames" -}}
MQTT_USER_PASSWORD SASL_OAUTHBEARER_CLIENT_SECRET KAFKA_SASL_PASSWORD KAFKA_PRODUCER_CONFIG WEB_TOKEN
{{- end -}}

{{/* The host names by which the pages answer: of the Service, and of its pods. However many there are, they stay the
same: a changed setting would replace every pod. */}}
{{- define "connector.hosts" -}}
{{- $name := include "connector.name" . -}}
{{- $hosts := list $name -}}
{{- range $number := until 3 -}}
{{- $hosts = append $hosts (printf "%s-%d.%s" $name $number $name) -}}
{{- end -}}
{{- $in := .Release.Namespace -}}
{{- concat $hosts (list (printf "*.%s.%s" $name $in) (printf "*.%s.svc" $in) (printf "*.%s.svc.cluster.local" $in)) | join "," -}}
{{- end -}}

{{/* The settings: those of k8s/base, then what the values say, as YAML with a text for each name. */}}
{{- define "connector.settings" -}}
{{- include "connector.check" . -}}
{{- $settings := dict -}}
{{- range $line := .Files.Get "files/settings.env" | splitList "\n" -}}
{{- if regexMatch "^[A-Z][A-Z0-9_]*=" $line -}}
{{- $_ := set $settings (splitn "=" 2 $line)._0 (splitn "=" 2 $line)._1 -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "WEB_ALLOWED_HOSTS" (include "connector.hosts" .) -}}
{{- with .Values.site -}}{{- $_ := set $settings "SITE" . -}}{{- end -}}
{{- $lists := dict "TOPIC_LIST" list "WILDCARD_TOPIC_LIST" list -}}
{{- range $mapping := .Values.mappings -}}
{{- $list := regexMatch "[+#]" $mapping | ternary "WILDCARD_TOPIC_LIST" "TOPIC_LIST" -}}
{{- $_ := set $lists $list (append (get $lists $list) $mapping) -}}
{{- end -}}
{{- range $name, $list := $lists -}}
{{- if $list -}}{{- $_ := set $settings $name (join "," $list) -}}{{- end -}}
{{- end -}}
{{- if .Values.routes -}}{{- $_ := set $settings "ROUTES_FILE" "/etc/connector/routes/routes.yaml" -}}{{- end -}}
{{- range .Values.existingSecret.settings -}}
{{- $_ := set $settings (printf "%s_FILE" .) (printf "/etc/connector/secrets/%s" .) -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{/* A number is written as in the file of values: 10000000, not 1e+07. */}}
{{- $_ := set $settings $name (kindIs "string" $value | ternary $value (toJson $value)) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* Fails with all that is wrong together in the values; what is wrong with one alone the schema has said before. */}}
{{- define "connector.check" -}}
{{- $wrong := list -}}
{{- $settings := .Values.settings -}}
{{- if not .Values.image.repository -}}
{{- $wrong = append $wrong "image.repository is needed: your registry and the name of the image there" -}}
{{- end -}}
{{- range list "MQTT_BROKER_URL" "KAFKA_BROKER" -}}
{{- if not (get $settings .) -}}{{- $wrong = append $wrong (printf "settings.%s is needed" .) -}}{{- end -}}
{{- if contains "@" (get $settings . | toString) -}}
{{- $wrong = append $wrong (printf "settings.%s must not contain a user or password: the password belongs into a Secret" .) -}}
{{- end -}}
{{- end -}}
{{- range include "connector.secretNames" . | splitList " " -}}
{{- if hasKey $settings . -}}
{{- $wrong = append $wrong (printf "settings.%s is a secret: put it into a Secret under this key, name the Secret in existingSecret.name and the key in existingSecret.settings" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $why := dict "MQTT_CLIENT_ID" "it is the name of each pod" "DB_PERSIST_PATH" "it is where the volume is" "WEB_PORT" "the probes ask there" -}}
{{- if hasKey $settings $name -}}{{- $wrong = append $wrong (printf "settings.%s cannot be set: %s" $name $why) -}}{{- end -}}
{{- end -}}
{{- $ways := list -}}
{{- if .Values.mappings -}}{{- $ways = append $ways "mappings" -}}{{- end -}}
{{- if .Values.routes -}}{{- $ways = append $ways "routes" -}}{{- end -}}
{{- if or $settings.TOPIC_LIST $settings.WILDCARD_TOPIC_LIST $settings.ROUTES_FILE -}}{{- $ways = append $ways "settings" -}}{{- end -}}
{{- if ne (len $ways) 1 -}}
{{- $wrong = append $wrong (printf "which messages go where is said by %s: give either mappings or routes" (join " and " $ways | default "nothing")) -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (not $settings.MQTT_SHARED_GROUP) -}}
{{- $wrong = append $wrong (printf "replicas is %d without settings.MQTT_SHARED_GROUP: each replica would write every message to Kafka" (int .Values.replicas)) -}}
{{- end -}}
{{- if and .Values.existingSecret.settings (not .Values.existingSecret.name) -}}
{{- $wrong = append $wrong "existingSecret.settings needs existingSecret.name: the Secret that has these keys" -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n\n%d value(s) to correct:\n- %s\n" (len $wrong) (join "\n- " $wrong)) -}}
{{- end -}}
{{- end -}}
