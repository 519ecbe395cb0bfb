{{/* A Job that runs one command of `tidewire`, with what it needs while it runs. As a hook before install and upgrade, or,
     where the servers are made by this release, as an ordinary Job that tries until they are there.
     Context: dict of root, component (the Job's name), hook, args, weight and egress (rules as text); token: true mounts
     a token for the Kubernetes API. */}}

{{- define "tidewire.jobAnnotations" -}}
{{- if .hook }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
{{- end }}

{{- define "tidewire.job" -}}
{{- $hook := .hook -}}
{{- $earlier := merge (dict "weight" (sub .weight 5)) . -}}
{{- $spec := include "tidewire.jobPod" . -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
  {{- include "tidewire.jobAnnotations" $earlier }}
automountServiceAccountToken: false
---
{{- if .root.Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
  {{- include "tidewire.jobAnnotations" $earlier }}
spec:
  podSelector:
    matchLabels:
      {{- include "tidewire.componentSelector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress: []
  egress:
    {{- include "tidewire.dnsRule" .root | nindent 4 }}
    {{- .egress | trim | nindent 4 }}
---
{{- end }}
apiVersion: batch/v1
kind: Job
metadata:
  # A Job cannot be changed: one that differs has another name.
  name: {{ include "tidewire.componentName" . }}{{ if not $hook }}-{{ sha256sum $spec | trunc 8 }}{{ end }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tidewire.labels" . | nindent 4 }}
  {{- include "tidewire.jobAnnotations" . }}
spec:
  backoffLimit: {{ ternary .root.Values.jobs.backoffLimit 100 $hook }}
  {{- if $hook }}
  activeDeadlineSeconds: {{ .root.Values.jobs.activeDeadlineSeconds }}
  {{- end }}
  template:
    {{- $spec | nindent 4 }}
{{- end }}

{{- define "tidewire.jobPod" -}}
metadata:
  labels:
    {{- include "tidewire.componentSelector" . | nindent 4 }}
    app.kubernetes.io/part-of: tidewire
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "tidewire.componentName" . }}
  automountServiceAccountToken: {{ .token }}
  {{- include "tidewire.podBasics" . | nindent 2 }}
  containers:
    - name: {{ .component }}
      image: {{ include "tidewire.image" (dict "root" .root "package" "tidewire") }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        {{- include "tidewire.env" . | nindent 8 }}
      resources:
        {{- toYaml .root.Values.jobs.resources | nindent 8 }}
      securityContext:
        {{- include "tidewire.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /data
        {{- include "tidewire.mounts" . | nindent 8 }}
  volumes:
    - name: data
      emptyDir:
        sizeLimit: 64Mi
    {{- include "tidewire.volumes" . | nindent 4 }}
{{- end }}
