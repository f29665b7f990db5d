/** Appraisal of verified evidence by a policy. */
export {
  type AppraisalPolicy,
  DEFAULT_APPRAISAL_POLICY,
  type DeviceClass,
  type EventLogRules,
  type ManufacturerRules,
} from "./appraisal-policy.ts";
export {
  type Appraisal,
  APPRAISAL_RULES,
  type AppraisalReason,
  appraise,
  type DeviceFacts,
  type EventLogFacts,
} from "./appraise.ts";
export { checkAppraisalPolicy } from "./check-policy.ts";
