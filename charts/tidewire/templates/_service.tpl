{{/* The objects of one service of the distributed backend. All services look alike; what differs comes from their block
     of values. Context: dict of root and component. registry.yaml and its like choose which of these they have. */}}

{{- define "tidewire.deployment" -}}
{{- $own := index .root.Values .component -}}
{{- $ports := index (include "tidewire.ports" . | fromJson) .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  {{- if not $own.autoscaling.enabled }}
  replicas: {{ $own.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  # A new pod is ready before an old one goes.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "tidewire.componentSelector" . | nindent 6 }}
  template:
    metadata:
      {{- include "tidewire.podMetadata" (merge (dict "own" $own) .) | nindent 6 }}
    spec:
      serviceAccountName: {{ include "tidewire.componentName" . }}
      automountServiceAccountToken: false
      {{- include "tidewire.podBasics" . | nindent 6 }}
      terminationGracePeriodSeconds: {{ include "tidewire.grace" . }}
      {{- with include "tidewire.scheduling" $own | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- if $own.topologySpread.enabled }}
      topologySpreadConstraints:
        {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ $key }}
          maxSkew: {{ $own.topologySpread.maxSkew }}
          whenUnsatisfiable: {{ $own.topologySpread.whenUnsatisfiable }}
          labelSelector:
            matchLabels:
              {{- include "tidewire.componentSelector" $ | nindent 14 }}
          # Pods of one version are spread by themselves, so that those which are going do not count.
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "tidewire.image" (dict "root" .root "package" .component) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          env:
            {{- include "tidewire.env" . | nindent 12 }}
            {{- with $own.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: grpc, containerPort: {{ index $ports 0 }}}
            - {name: metrics, containerPort: {{ index $ports 1 }}}
          {{- include "tidewire.probes" (dict "grpc" (ternary 0 (index $ports 0) .root.Values.tls.enabled) "http" "metrics") | nindent 10 }}
          lifecycle:
            {{- include "tidewire.lifecycle" . | nindent 12 }}
          resources:
            {{- toYaml $own.resources | nindent 12 }}
          securityContext:
            {{- include "tidewire.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: /data
            {{- include "tidewire.mounts" . | nindent 12 }}
      volumes:
        # Nothing in it outlives the pod: records and state are in Kafka and Cassandra.
        - name: data
          emptyDir:
            sizeLimit: 1Gi
        {{- include "tidewire.volumes" . | nindent 8 }}
{{- end }}

{{/* Headless, so that clients see every pod and spread their calls over them. */}}
{{- define "tidewire.service" -}}
{{- $ports := index (include "tidewire.ports" . | fromJson) .component -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "tidewire.componentSelector" . | nindent 4 }}
  ports:
    - {name: grpc, port: {{ index $ports 0 }}, targetPort: grpc, appProtocol: grpc}
    - {name: metrics, port: {{ index $ports 1 }}, targetPort: metrics}
{{- end }}

{{- define "tidewire.podDisruptionBudget" -}}
{{- $own := index .root.Values .component -}}
{{- if $own.pdb.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ $own.pdb.maxUnavailable }}
  # A pod that is broken anyway does not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tidewire.componentSelector" . | nindent 6 }}
{{- end }}
{{- end }}
