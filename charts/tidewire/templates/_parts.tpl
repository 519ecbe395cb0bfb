{{/* Objects that every component has, whichever backend. Context: dict of root and component. */}}

{{- define "tidewire.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "tidewire.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
