import hook from './index.js';

export const { start, BudgetExceeded, ModelUnavailable } = hook;
export default hook;
