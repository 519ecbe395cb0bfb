{{/* Objects for operators that a cluster may have. Context: dict of root and component. */}}

{{- define "tidewire.serviceMonitor" -}}
{{- $monitor := .root.Values.serviceMonitor -}}
{{- if $monitor.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "tidewire.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tidewire.labels" . | nindent 4 }}
    {{- with $monitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "tidewire.componentSelector" . | nindent 6 }}
  endpoints:
    {{- if eq .component "platform" }}
    {{- range $service, $_ := include "tidewire.ports" . | fromJson }}
    - {port: m-{{ $service }}, interval: {{ $monitor.interval }}}
    {{- end }}
    {{- else }}
    - {port: metrics, interval: {{ $monitor.interval }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* By the full name of the gRPC service, so that one listener of a Gateway serves all of them. */}}
{{- define "tidewire.grpcRoute" -}}
{{- $route := .root.Values.gatewayApi.grpcRoute -}}
{{- if $route.enabled -}}
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  parentRefs:
    {{- toYaml $route.parentRefs | nindent 4 }}
  {{- with $route.hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    {{- $root := .root }}
    {{- $component := .component }}
    {{- $services := ternary (list "registry" "ingestion" "storage") (list $component) (eq $component "platform") }}
    {{- range $service := $services }}
    - matches:
        - method:
            service: tidewire.{{ $service }}.v1.{{ title $service }}Service
      backendRefs:
        - name: {{ include "tidewire.componentName" (dict "root" $root "component" $component) }}
          port: {{ index (include "tidewire.ports" $root | fromJson) $service 0 }}
    {{- end }}
{{- end }}
{{- end }}
