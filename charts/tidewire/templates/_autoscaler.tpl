{{/* How many pods a service has: by processor time, or by KEDA, which also sees the lag of a consumer. Context: dict of
     root and component. */}}

{{- define "tidewire.autoscaler" -}}
{{- $own := index .root.Values .component -}}
{{- if $own.autoscaling.enabled -}}
{{- if $own.autoscaling.keda.enabled -}}
{{ include "tidewire.scaledObject" . }}
{{- else -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "tidewire.componentName" . }}
  minReplicas: {{ $own.autoscaling.minReplicas }}
  maxReplicas: {{ $own.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $own.autoscaling.targetCPUUtilizationPercentage }}
  behavior:
    {{- toYaml $own.autoscaling.behavior | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{/* By the larger of two wishes: processor time and, for the consumer of the telemetry topic, records that wait. */}}
{{- define "tidewire.scaledObject" -}}
{{- $own := index .root.Values .component -}}
{{- $kafka := include "tidewire.kafka" .root | fromJson -}}
{{- $secured := or $kafka.userSecret $kafka.caSecret $kafka.certSecret -}}
{{- $lag := hasKey $own.autoscaling.keda "lagThreshold" -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    name: {{ include "tidewire.componentName" . }}
  minReplicaCount: {{ $own.autoscaling.minReplicas }}
  maxReplicaCount: {{ $own.autoscaling.maxReplicas }}
  pollingInterval: {{ $own.autoscaling.keda.pollingInterval }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml $own.autoscaling.behavior | nindent 8 }}
  triggers:
    - type: cpu
      metricType: Utilization
      metadata:
        value: {{ $own.autoscaling.targetCPUUtilizationPercentage | quote }}
    {{- if $lag }}
    - type: kafka
      metadata:
        bootstrapServers: {{ $kafka.bootstrap }}
        consumerGroup: {{ .root.Values.kafka.topicPrefix }}tidewire.storage
        topic: {{ .root.Values.kafka.topicPrefix }}tidewire.telemetry.v1
        lagThreshold: {{ $own.autoscaling.keda.lagThreshold | quote }}
        # Where nothing was committed yet, everything waits.
        offsetResetPolicy: earliest
        {{- if $kafka.userSecret }}
        sasl: {{ index (dict "SCRAM-SHA-512" "scram_sha512" "SCRAM-SHA-256" "scram_sha256" "PLAIN" "plaintext") $kafka.mechanism }}
        {{- end }}
        {{- if has $kafka.protocol (list "SSL" "SASL_SSL") }}
        tls: enable
        {{- end }}
      {{- if $secured }}
      authenticationRef:
        name: {{ include "tidewire.componentName" . }}-lag
      {{- end }}
    {{- end }}
{{- if and $lag $secured }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: {{ include "tidewire.componentName" . }}-lag
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tidewire.labels" . | nindent 4 }}
spec:
  {{- if and $kafka.userSecret $kafka.username }}
  # KEDA takes the user's name from a variable of the scaled pods.
  env:
    - {parameter: username, name: TIDEWIRE_KAFKA_SASL_USERNAME, containerName: {{ .component }}}
  {{- end }}
  secretTargetRef:
    {{- if $kafka.userSecret }}
    {{- if not $kafka.username }}
    - {parameter: username, name: {{ $kafka.userSecret }}, key: username}
    {{- end }}
    - {parameter: password, name: {{ $kafka.userSecret }}, key: password}
    {{- end }}
    {{- if $kafka.caSecret }}
    - {parameter: ca, name: {{ $kafka.caSecret }}, key: ca.crt}
    {{- end }}
    {{- if $kafka.certSecret }}
    - {parameter: cert, name: {{ $kafka.certSecret }}, key: tls.crt}
    - {parameter: key, name: {{ $kafka.certSecret }}, key: tls.key}
    {{- end }}
{{- end }}
{{- end }}
