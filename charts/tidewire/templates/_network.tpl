{{/* NetworkPolicies: network.yaml refuses everything for all pods of the release, and these allow what is named. Context:
     dict of root and component. */}}

{{/* Which services a service calls; the others it does not reach. As JSON. */}}
{{- define "tidewire.calls" -}}
{"registry": ["storage"], "ingestion": ["registry"], "storage": []}
{{- end }}

{{- define "tidewire.networkPolicy" -}}
{{- $root := .root -}}
{{- $network := .root.Values.networkPolicy -}}
{{- if $network.enabled -}}
{{- $ports := include "tidewire.ports" . | fromJson -}}
{{- $calls := include "tidewire.calls" . | fromJson -}}
{{- $grpc := list -}}
{{- $metrics := list -}}
{{- range $service, $pair := $ports -}}
{{- if or (eq $.component "platform") (eq $.component $service) -}}
{{- $grpc = append $grpc (index $pair 0) -}}
{{- $metrics = append $metrics (index $pair 1) -}}
{{- end -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "tidewire.componentSelector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    # Clients call the API, and so do other services of this release.
    - ports:
        {{- include "tidewire.tcpPorts" $grpc | nindent 8 }}
      from:
        {{- if $network.clients.sameNamespace }}
        - podSelector: {}
        {{- else }}
        - podSelector:
            matchLabels:
              {{- include "tidewire.selector" .root | nindent 14 }}
        {{- end }}
        {{- with include "tidewire.namespacePeers" $network.clients | trim }}
        {{- . | nindent 8 }}
        {{- end }}
    {{- if or $network.monitoring.namespaces $network.monitoring.peers }}
    # Prometheus reads the metrics.
    - ports:
        {{- include "tidewire.tcpPorts" $metrics | nindent 8 }}
      from:
        {{- include "tidewire.namespacePeers" $network.monitoring | trim | nindent 8 }}
    {{- end }}
  egress:
    {{- include "tidewire.dnsRule" .root | nindent 4 }}
    {{- range $service := index $calls .component }}
    # It calls this service.
    - ports:
        {{- include "tidewire.tcpPorts" (list (index $ports $service 0)) | nindent 8 }}
      to:
        - podSelector:
            matchLabels:
              {{- include "tidewire.componentSelector" (dict "root" $root "component" $service) | nindent 14 }}
    {{- end }}
    {{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "kafka") }}
    {{- include "tidewire.kafkaRule" .root | nindent 4 }}
    {{- end }}
    {{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "cassandra") }}
    {{- include "tidewire.cassandraRule" .root | nindent 4 }}
    {{- end }}
    {{- with $network.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "tidewire.tcpPorts" -}}
{{- range $index, $port := . }}
{{- if $index }}
{{ end -}}
- {protocol: TCP, port: {{ $port }}}
{{- end }}
{{- end }}

{{/* Context: a block with namespaces and peers. */}}
{{- define "tidewire.namespacePeers" -}}
{{- with .namespaces }}
- namespaceSelector:
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
{{- end }}
{{- with .peers }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidewire.dnsRule" -}}
# Names are looked up.
- ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- include "tidewire.destinations" .Values.networkPolicy.dns.peers }}
{{- end }}

{{- define "tidewire.kafkaRule" -}}
{{- $network := .Values.networkPolicy.kafka -}}
# Brokers.
- ports:
    {{- include "tidewire.tcpPorts" (include "tidewire.portsOf" (dict "addresses" (include "tidewire.kafka" . | fromJson).bootstrap "more" $network.ports) | fromJsonArray) | nindent 4 }}
  {{- include "tidewire.destinations" $network.peers }}
{{- end }}

{{- define "tidewire.cassandraRule" -}}
{{- $network := .Values.networkPolicy.cassandra -}}
# Nodes of Cassandra.
- ports:
    {{- include "tidewire.tcpPorts" (include "tidewire.portsOf" (dict "addresses" (include "tidewire.cassandra" . | fromJson).contact "more" $network.ports) | fromJsonArray) | nindent 4 }}
  {{- include "tidewire.destinations" $network.peers }}
{{- end }}

{{/* Without peers nothing, which means anywhere. Context: the list of peers. */}}
{{- define "tidewire.destinations" -}}
{{- with . }}
  to:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "tidewire.apiServerRule" -}}
{{- $network := .Values.networkPolicy.apiServer -}}
# The Kubernetes API.
- ports:
    {{- include "tidewire.tcpPorts" $network.ports | nindent 4 }}
  {{- include "tidewire.destinations" $network.peers }}
{{- end }}
