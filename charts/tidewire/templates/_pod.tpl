{{/* What the pods of all services and Jobs have in common. Context: dict of root and component. */}}

{{/* As the Pod Security Standard "restricted" asks, and no more. Links to Services are off because theirs would be
     variables such as TIDEWIRE_REGISTRY_PORT=tcp://…, which are settings of ours. */}}
{{- define "tidewire.podBasics" -}}
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "tidewire.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a pod may run, as its block of values says. Context: the block. */}}
{{- define "tidewire.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Secrets come as files, which processes read again when they change; never more keys than the process needs. */}}
{{- define "tidewire.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- if has .component (list "platform" "registry" "ingestion" "storage") }}
{{- with include "tidewire.keysSecret" .root }}
- name: keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: service-token, path: service-token}
      {{- if has $.component (list "registry" "platform") }}
      - {key: signing-key.pem, path: signing-key.pem}
      {{- end }}
{{- end }}
{{- with include "tidewire.tlsSecret" .root }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "kafka") }}
{{- with include "tidewire.serverVolume" (dict "name" "kafka" "server" (include "tidewire.kafka" .root | fromJson)) }}
{{ . }}
{{- end }}
{{- end }}
{{- if include "tidewire.needs" (dict "root" .root "component" .component "server" "cassandra") }}
{{- with include "tidewire.serverVolume" (dict "name" "cassandra" "server" (include "tidewire.cassandra" .root | fromJson)) }}
{{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* One volume of the Secrets of a server. Context: dict of name and server (see _servers.tpl). */}}
{{- define "tidewire.serverVolume" -}}
{{- $server := .server -}}
{{- if or $server.userSecret $server.caSecret $server.certSecret -}}
- name: {{ .name }}
  projected:
    defaultMode: 0440
    sources:
      {{- with $server.userSecret }}
      - secret: {name: {{ . }}, items: [{key: password, path: password}]}
      {{- end }}
      {{- with $server.caSecret }}
      - secret: {name: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
      {{- end }}
      {{- with $server.certSecret }}
      - secret: {name: {{ . }}, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}
      {{- end }}
{{- end -}}
{{- end }}

{{- define "tidewire.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- range include "tidewire.volumes" . | fromYamlArray }}
{{- if ne .name "tmp" }}
- name: {{ .name }}
  mountPath: /etc/tidewire/{{ .name }}
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{/* Pause before the process is told to stop, so that those who know this pod's address learn that it goes. */}}
{{- define "tidewire.lifecycle" -}}
preStop:
  sleep:
    seconds: {{ .root.Values.drain.preStopSeconds }}
{{- end }}

{{/* Longest time from the wish that a pod ends to SIGKILL. `tidewire up` stops its services one after another. */}}
{{- define "tidewire.grace" -}}
{{- $times := ternary 3 1 (eq .component "platform") -}}
{{ add .root.Values.drain.preStopSeconds (mul $times .root.Values.drain.seconds) 15 }}
{{- end }}

{{/* Context: dict of root, component and own, the block of values. Without the chart's version, so that a new chart that
     changes nothing else restarts nothing. */}}
{{- define "tidewire.podMetadata" -}}
labels:
  {{- include "tidewire.componentSelector" . | nindent 2 }}
  app.kubernetes.io/part-of: tidewire
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .own.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .own.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Three questions with different meanings: has the process started; is it stuck, so that only a restart helps; can it
     serve now. Kubelet's gRPC probes speak no TLS, so that with TLS the pages on the metrics port answer, which say the
     same; `tidewire up` has one page for all its services. Context: dict of http (name of a port) and grpc (number of a
     port; 0: ask by HTTP). */}}
{{- define "tidewire.probes" -}}
startupProbe:
  {{- if .grpc }}
  grpc: {port: {{ .grpc }}, service: startup}
  {{- else }}
  httpGet: {path: /startupz, port: {{ .http }}}
  {{- end }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 90
livenessProbe:
  {{- if .grpc }}
  grpc: {port: {{ .grpc }}, service: liveness}
  {{- else }}
  httpGet: {path: /livez, port: {{ .http }}}
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  {{- if .grpc }}
  grpc: {port: {{ .grpc }}}
  {{- else }}
  httpGet: {path: /readyz, port: {{ .http }}}
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}
