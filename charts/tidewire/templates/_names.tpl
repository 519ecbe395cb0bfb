{{/* Names and labels. Context: the root, or where it says so a dict of root and component. */}}

{{- define "tidewire.name" -}}
{{- default .Chart.Name .Values.nameOverride | trimSuffix "-" -}}
{{- end }}

{{/* At most 40 characters, so that the longest suffix still fits into a DNS label. */}}
{{- define "tidewire.fullname" -}}
{{- $name := include "tidewire.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Of a component: the platform's own name where one pod is all of it. */}}
{{- define "tidewire.componentName" -}}
{{- $fullname := include "tidewire.fullname" .root -}}
{{- if eq .component "platform" -}}{{ $fullname }}{{- else -}}{{ printf "%s-%s" $fullname .component }}{{- end -}}
{{- end }}

{{/* What never changes, for selectors: of all pods of the release. */}}
{{- define "tidewire.selector" -}}
app.kubernetes.io/name: {{ include "tidewire.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidewire.componentSelector" -}}
{{ include "tidewire.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tidewire.labels" -}}
{{ include "tidewire.componentSelector" . }}
app.kubernetes.io/part-of: tidewire
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidewire.metadata" -}}
name: {{ include "tidewire.componentName" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "tidewire.labels" . | nindent 2 }}
{{- end }}

{{/* Context: dict of root and package. */}}
{{- define "tidewire.image" -}}
{{- $image := .root.Values.image -}}
{{- $reference := index $image.references .package -}}
{{- $path := printf "%s/%s:%s" $image.repository .package (default .root.Chart.AppVersion $image.tag) -}}
{{- if $reference -}}{{ $reference }}{{- else if $image.registry -}}{{ printf "%s/%s" $image.registry $path }}{{- else -}}{{ $path }}{{- end -}}
{{- end }}

{{/* The name by which a component is reached, with the namespace: the same for every pod of the cluster. */}}
{{- define "tidewire.host" -}}
{{ printf "%s.%s.svc" (include "tidewire.componentName" .) .root.Release.Namespace }}
{{- end }}

{{/* The Secret with the platform's keys; empty where they are files on the embedded backend's volume. */}}
{{- define "tidewire.keysSecret" -}}
{{- if .Values.auth.existingSecret -}}
{{ .Values.auth.existingSecret }}
{{- else if eq .Values.backend "distributed" -}}
{{ include "tidewire.fullname" . }}-keys
{{- end -}}
{{- end }}

{{- define "tidewire.tlsSecret" -}}
{{- if .Values.tls.enabled -}}
{{ default (printf "%s-tls" (include "tidewire.fullname" .)) .Values.tls.existingSecret }}
{{- end -}}
{{- end }}

{{/* gRPC and metrics port of each service, as JSON. */}}
{{- define "tidewire.ports" -}}
{"registry": [7001, 7101], "ingestion": [7002, 7102], "storage": [7003, 7103]}
{{- end }}
